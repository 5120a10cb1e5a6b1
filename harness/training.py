"""Training a subject: transformers' Trainer, so that a killed run continues on the same curve to the bit."""

from __future__ import annotations

import json
import logging
import math
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import Dataset
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import TrainerControl, TrainerState

from harness.errors import HarnessError, Interrupted
from harness.memory import peak_memory, reset_peak_memory
from harness.optimizer import MuonAdamW
from harness.progress import Report
from harness.training_config import TrainingConfig
from kernels import dispatch

if TYPE_CHECKING:
    from harness.corpus import PackedSplit

log = logging.getLogger(__name__)

_MARK = "complete.json"  # written last into a checkpoint: without it the checkpoint was cut off while being written


@dataclass(frozen=True)
class TrainingRecord:
    """What training a subject took. Times are wall seconds on this machine, over all parts of an interrupted run."""

    tokens: int
    steps: int
    parameters: int
    active_parameters: int
    forward_flops_per_token: float
    training_flops: float
    seconds: float
    tokens_per_second: float
    peak_memory_bytes: int
    final_loss: float
    kernels: dict[str, str]

    @staticmethod
    def load(folder: Path) -> TrainingRecord:
        return TrainingRecord(**json.loads((folder / "training.json").read_text()))


class StopSignal:
    """SIGTERM while something trains: the handler sets `requested`; training writes a checkpoint at the next point of
    its curve and stops. Elsewhere there is nothing to save, and the handler stops at once."""

    training = False
    requested = False


STOP = StopSignal()


def train_subject(
    model: PreTrainedModel,
    config: TrainingConfig,
    split: PackedSplit,
    *,
    seed: int,
    work: Path,
    report: Report,
    device: str,
    dtype: str,
) -> TrainingRecord:
    """Trains `model` by next-token cross entropy and leaves `model/`, `curve.jsonl` and `training.json` in `work`.

    Continues from the last complete checkpoint in `work/checkpoint`. FLOPs are 3 × forward per token: the backward pass
    counts twice the forward one.

    Raises Interrupted after a checkpoint when SIGTERM was received, HarnessError when the loss is no longer finite.
    """
    sequence_length = split.length
    steps = math.ceil(config.tokens / (config.batch_sequences * sequence_length))
    # A checkpoint between two points of the curve would lose the running mean of the loss.
    interval = max(1, steps // (config.checkpoints + 1))
    save_every = math.ceil(interval / config.log_every) * config.log_every
    checkpoints = work / "checkpoint"
    resume = _last_complete(checkpoints)
    curve = _Curve(work / "curve.jsonl", tokens_per_step=config.batch_sequences * sequence_length)
    seconds_before = 0.0
    if resume is not None:
        state = json.loads((resume / _MARK).read_text())
        seconds_before = state["seconds"]
        log.info("continuing from step %d of %d", state["step"], steps)
    curve.truncate(after_step=int(resume.name.split("-")[1]) if resume else 0)

    optimizer = MuonAdamW(model, model.parameter_roles(), config)  # pyright: ignore[reportCallIssue]
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, _Schedule(steps, config.warmup))
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        max_steps=steps,
        per_device_train_batch_size=config.batch_sequences,
        max_grad_norm=config.clip,
        seed=seed,
        data_seed=seed,
        logging_steps=config.log_every,
        logging_nan_inf_filter=False,
        save_strategy="steps" if config.checkpoints else "no",
        save_steps=save_every,
        save_total_limit=2,  # the newest may have been cut off while it was written
        use_cpu=device == "cpu",
        bf16=dtype == "bfloat16",
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=device != "cpu",
    )
    reset_peak_memory(device)
    watcher = _Watcher(curve, report, steps, seconds_before)
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=_Sequences(split),
        optimizers=(optimizer, scheduler),
        callbacks=[watcher],
    )
    trainer.remove_callback(_printer())
    STOP.training = True
    try:
        with dispatch.recording() as kernels:
            trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    finally:
        STOP.training = False
    if watcher.stopped:
        raise Interrupted(f"stopped at step {watcher.step} of {steps}; run the same command to continue there")

    model.save_pretrained(work / "model")
    shutil.rmtree(checkpoints, ignore_errors=True)
    seconds = watcher.seconds()
    tokens = steps * config.batch_sequences * sequence_length
    flops = model.forward_flops_per_token(sequence_length)  # pyright: ignore[reportCallIssue]
    record = TrainingRecord(
        tokens=tokens,
        steps=steps,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        active_parameters=model.active_parameters(),  # pyright: ignore[reportCallIssue]
        forward_flops_per_token=flops,
        training_flops=3.0 * flops * tokens,
        seconds=seconds,
        tokens_per_second=tokens / seconds,
        peak_memory_bytes=peak_memory(device),
        final_loss=watcher.last_loss,
        kernels=dict(kernels),
    )
    (work / "training.json").write_text(json.dumps(asdict(record), indent=1))
    return record


class _Schedule:
    """Linear rise over `warmup` of the steps, then linear fall to zero at the last."""

    def __init__(self, steps: int, warmup: float) -> None:
        self.steps, self.rise = steps, max(1, round(warmup * steps))

    def __call__(self, step: int) -> float:
        if step < self.rise:
            return (step + 1) / self.rise
        return max(0.0, (self.steps - step) / max(1, self.steps - self.rise))


class _Sequences(Dataset):
    def __init__(self, split: PackedSplit) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        ids = torch.tensor(self.split.input_ids(index), dtype=torch.long)  # a copy: the file is read-only
        return {"input_ids": ids, "labels": ids}


class _Curve:
    """Rows of `curve.jsonl`, strictly after the step that a resumed run continues from."""

    def __init__(self, path: Path, tokens_per_step: int) -> None:
        self.path, self.tokens_per_step = path, tokens_per_step

    def truncate(self, after_step: int) -> None:
        rows = [line for line in self._lines() if json.loads(line)["step"] <= after_step]
        self.path.write_text("".join(rows))

    def _lines(self) -> list[str]:
        if not self.path.exists():
            return []
        # A killed run may have left half a line at the end.
        return [line for line in self.path.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def append(self, step: int, values: dict[str, float]) -> None:
        row = {"step": step, "tokens": step * self.tokens_per_step, **values}
        with open(self.path, "a") as file:
            file.write(json.dumps(row) + "\n")


class _Watcher(TrainerCallback):
    """Writes the curve, reports progress, marks complete checkpoints, stops on SIGTERM or a loss that is not finite."""

    def __init__(self, curve: _Curve, report: Report, steps: int, seconds_before: float) -> None:
        self.curve, self.report, self.steps = curve, report, steps
        self.seconds_before, self.started = seconds_before, time.monotonic()
        self.stopped, self.step, self.last_loss = False, 0, math.nan
        self._since: tuple[float, int] | None = None

    def seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self.started

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        self.step = state.global_step
        tokens = self.curve.tokens_per_step
        self.report(self.step * tokens, self.steps * tokens, "tokens")
        # Only from a point of the curve can training continue on the same curve: a few more steps until the next.
        if STOP.requested and self.step < self.steps and self.step % args.logging_steps == 0:
            self.stopped = control.should_training_stop = control.should_save = True
        return control

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if not logs or "loss" not in logs:
            return
        loss, now = float(logs["loss"]), time.monotonic()
        values = {"loss": loss, "lr": float(logs["learning_rate"]), "gradient_norm": float(logs["grad_norm"])}
        if self._since:
            before, step = self._since
            values["tokens_per_second"] = (state.global_step - step) * self.curve.tokens_per_step / (now - before)
        self._since = (now, state.global_step)
        self.last_loss = loss
        self.curve.append(state.global_step, values)
        if not math.isfinite(loss):
            raise HarnessError(f"the training loss became {loss} at step {state.global_step}: lower the learning rates")

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        (folder / _MARK).write_text(json.dumps({"step": state.global_step, "seconds": self.seconds()}))


def _last_complete(checkpoints: Path) -> Path | None:
    found = sorted(checkpoints.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]), reverse=True)
    for folder in found:
        try:
            json.loads((folder / _MARK).read_text())
            return folder
        except (OSError, ValueError):
            shutil.rmtree(folder, ignore_errors=True)
    return None


def _printer() -> type[TrainerCallback]:
    """The callback with which Trainer prints every log row to standard output."""
    from transformers.trainer_callback import PrinterCallback

    return PrinterCallback
