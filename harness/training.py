"""Training a subject: transformers' Trainer, so that a killed run continues on the same curve to the bit."""

from __future__ import annotations

import json
import logging
import math
import shutil
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import TrainerControl, TrainerState

from harness.cost import Cost
from harness.errors import Diverged, HarnessError, Interrupted
from harness.memory import DeviceMemory
from harness.optimizer import MuonAdamW, clip_gradients
from harness.probe import UsageProbe, probe_every
from harness.progress import Report
from harness.targets import Objective, dev_cross_entropy, forward_flops_per_token
from harness.training_arguments import OneDevice
from harness.training_config import Distillation, Floor, TrainingConfig
from harness.training_order import Sequences
from kernels import dispatch

if TYPE_CHECKING:
    from harness.corpus import PackedSplit

log = logging.getLogger(__name__)

_MARK = "complete.json"  # written last into a checkpoint: without it the checkpoint was cut off while being written


CURVE_FILE = "curve.jsonl"


@dataclass(frozen=True)
class TrainingRecord:
    """What training a subject took. Times are wall seconds on this machine, over all parts of an interrupted run.

    tokens: those that went through the model. training_flops holds all of it: teacher_flops, the part that a teacher's
    training and its forward passes took, too. An untrained subject has 0 tokens. peak_memory_bytes: None where it
    cannot be told (`harness.memory`). floor: c of a target with a floor, and the μ it ended with.
    """

    tokens: int
    steps: int
    parameters: int
    active_parameters: int
    forward_flops_per_token: float
    training_flops: float
    seconds: float
    tokens_per_second: float
    peak_memory_bytes: int | None
    final_loss: float | None
    kernels: dict[str, str]
    teacher_flops: float = 0.0
    floor: float | None = None
    mu: float | None = None

    @staticmethod
    def load(folder: Path) -> TrainingRecord:
        return TrainingRecord(**json.loads((folder / "training.json").read_text()))

    def cost(self, trial_flops: float) -> Cost:
        """As the cost of a system; `trial_flops` is what choosing the learning rates took beside it."""
        return Cost(
            parameters=self.parameters,
            active_parameters=self.active_parameters,
            forward_flops_per_token=self.forward_flops_per_token,
            training_flops=self.training_flops,
            training_tokens=self.tokens,
            training_seconds=self.seconds,
            peak_memory_bytes=self.peak_memory_bytes,
            trial_flops=trial_flops,
        )


class StopSignal:
    """SIGTERM while something trains: the handler sets `requested`; training writes a checkpoint at the next point of
    its curve and stops. Elsewhere there is nothing to save, and the handler stops at once."""

    training = False
    requested = False


STOP = StopSignal()


@dataclass(frozen=True)
class Teacher:
    """A trained model on the student's device, and the FLOPs that its training took (0 where nobody knows)."""

    model: PreTrainedModel
    training_flops: float


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
    teacher: Teacher | None = None,
    dev: PackedSplit | None = None,
) -> TrainingRecord:
    """Trains `model` on its target and leaves `model/`, `curve.jsonl` and `training.json` in `work`.

    teacher: for a target that names one; dev: the split on which a floor's teacher is measured (measuring is not
    charged as training). Continues from the last complete checkpoint in `work/checkpoint`.

    FLOPs are 3 × forward per token (the backward pass counts twice the forward one), and for KL one forward pass of the
    teacher per token and all that its own training took; a floor under the teacher's loss is charged for that too.

    In the curve `loss` is always the next-token cross entropy, mean over the steps since the last row; `objective`,
    where it is another, is what was minimised.

    Raises Interrupted after a checkpoint when SIGTERM was received, Diverged when the loss is no longer finite.
    """
    sequence_length = split.length
    steps = config.steps(sequence_length)
    per_token = forward_flops_per_token(model, sequence_length)
    objective = _objective(config, teacher, dev)
    probe = UsageProbe(split)
    # A checkpoint between two points of the curve would lose the running mean of the loss.
    interval = max(1, steps // (config.checkpoints + 1))
    save_every = math.ceil(interval / config.log_every) * config.log_every
    checkpoints = work / "checkpoint"
    resume = _last_complete(checkpoints)
    curve = _Curve(work / CURVE_FILE)
    seconds_before, tokens_before = 0.0, 0
    if resume is not None:
        state = json.loads((resume / _MARK).read_text())
        seconds_before, tokens_before, objective.mu = state["seconds"], state["tokens"], state["mu"]
        probe.load(resume)
        log.info("continuing from step %d of %d", state["step"], steps)
    curve.truncate(after_step=int(resume.name.split("-")[1]) if resume else 0)

    optimizer = MuonAdamW(model, model.parameter_roles(), config)  # pyright: ignore[reportCallIssue]
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, _Schedule(steps, config.warmup))
    arguments = OneDevice(
        output_dir=str(checkpoints),
        max_steps=steps,
        per_device_train_batch_size=config.batch_sequences,
        max_grad_norm=config.clip,
        seed=seed,
        train_sampling_strategy="sequential",  # the order is that of Sequences
        logging_steps=config.log_every,
        logging_nan_inf_filter=False,
        save_strategy="steps" if config.checkpoints else "no",
        save_steps=save_every,
        save_total_limit=2,  # the newest may have been cut off while it was written
        on=device,
        bf16=dtype == "bfloat16",
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=device != "cpu",
    )
    memory = DeviceMemory.watch(device, model, *([teacher.model] if teacher else []))
    of_all = steps * config.batch_sequences * sequence_length
    watcher = _Watcher(curve, report, steps, of_all, seconds_before, tokens_before, objective, probe)
    trainer = _Trainer(
        objective=objective,
        watcher=watcher,
        model=model,
        args=arguments,
        train_dataset=Sequences(split, steps * config.batch_sequences, seed),
        optimizers=(optimizer, scheduler),
    )
    trainer.remove_callback(_printer())
    STOP.training = True
    try:
        with dispatch.recording() as kernels:
            trainer.train(resume_from_checkpoint=str(resume) if resume else None)
        watcher.check_rest()
    except Diverged as error:
        error.training_flops = 3.0 * per_token * error.tokens
        raise
    finally:
        STOP.training = False
    if watcher.stopped:
        raise Interrupted(f"stopped at step {watcher.step} of {steps}; run the same command to continue there")

    model.save_pretrained(work / "model")
    shutil.rmtree(checkpoints, ignore_errors=True)
    seconds = watcher.seconds()
    tokens = watcher.tokens
    from_teacher = 0.0
    if teacher is not None:
        watched = isinstance(config.target, Distillation)
        from_teacher = (
            teacher.training_flops + watched * forward_flops_per_token(teacher.model, sequence_length) * tokens
        )
    record = TrainingRecord(
        tokens=tokens,
        steps=steps,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        active_parameters=model.active_parameters(),  # pyright: ignore[reportCallIssue]
        forward_flops_per_token=per_token,
        training_flops=3.0 * per_token * tokens + from_teacher,
        seconds=seconds,
        tokens_per_second=tokens / seconds,
        peak_memory_bytes=memory.peak() if memory else None,
        final_loss=watcher.last_loss,
        kernels=dict(kernels),
        teacher_flops=from_teacher,
        floor=objective.floor,
        mu=objective.mu if objective.floor is not None else None,
    )
    return _recorded(record, work)


def save_untrained(model: PreTrainedModel, sequence_length: int, work: Path) -> TrainingRecord:
    """The control that was never trained: leaves what `train_subject` leaves, with an empty curve."""
    model.save_pretrained(work / "model")
    (work / CURVE_FILE).write_text("")
    record = TrainingRecord(
        tokens=0,
        steps=0,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        active_parameters=model.active_parameters(),  # pyright: ignore[reportCallIssue]
        forward_flops_per_token=forward_flops_per_token(model, sequence_length),
        training_flops=0.0,
        seconds=0.0,
        tokens_per_second=0.0,
        peak_memory_bytes=None,
        final_loss=None,
        kernels={},
    )
    return _recorded(record, work)


def _recorded(record: TrainingRecord, work: Path) -> TrainingRecord:
    (work / "training.json").write_text(json.dumps(asdict(record), indent=1))
    return record


def _objective(config: TrainingConfig, teacher: Teacher | None, dev: PackedSplit | None) -> Objective:
    floor = None
    if teacher is not None:
        teacher.model.eval().requires_grad_(False)
    if isinstance(config.target, Floor):
        floor = config.target.cross_entropy
        if floor is None:
            assert teacher is not None
            assert dev is not None
            floor = dev_cross_entropy(teacher.model, dev) + config.target.delta
            log.info("floor: cross entropy %.4f", floor)
    return Objective(config, teacher.model if teacher else None, floor)


class _Trainer(Trainer):
    """Trainer with our loss, and a clipping that knows sparse gradients.

    The clipping takes the place of accelerate's, through which Trainer clips; the watcher makes sure of every step, so
    that a version of transformers that goes another way cannot train unclipped.
    """

    def __init__(self, *, objective: Objective, watcher: _Watcher, **kwargs: Any) -> None:
        super().__init__(callbacks=[watcher], **kwargs)
        self.objective, self.watcher = objective, watcher
        self.model_accepts_loss_kwargs = False  # the loss is a mean over the batch

        def clip(parameters: Iterable[torch.Tensor], max_norm: float, norm_type: float = 2) -> torch.Tensor:
            watcher.clipped = True
            return clip_gradients(parameters, max_norm)

        self.accelerator.clip_grad_norm_ = clip

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        loss = self.objective(model, inputs["input_ids"], inputs["labels"])
        self.watcher.note(self.objective.terms, inputs["input_ids"].numel())
        return loss


class _Schedule:
    """Linear rise over `warmup` of the steps, then linear fall to zero at the last."""

    def __init__(self, steps: int, warmup: float) -> None:
        self.steps, self.rise = steps, max(1, round(warmup * steps))

    def __call__(self, step: int) -> float:
        if step < self.rise:
            return (step + 1) / self.rise
        return max(0.0, (self.steps - step) / max(1, self.steps - self.rise))


class _Curve:
    """Rows of `curve.jsonl`, strictly after the step that a resumed run continues from."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def truncate(self, after_step: int) -> None:
        rows = [line for line in self._lines() if json.loads(line)["step"] <= after_step]
        self.path.write_text("".join(rows))

    def _lines(self) -> list[str]:
        if not self.path.exists():
            return []
        # A killed run may have left half a line at the end.
        return [line for line in self.path.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def append(self, step: int, tokens: int, values: dict[str, float]) -> None:
        row = {"step": step, "tokens": tokens, **values}
        with open(self.path, "a") as file:
            file.write(json.dumps(row) + "\n")


class _Watcher(TrainerCallback):
    """Writes the curve, reports progress, marks complete checkpoints, stops on SIGTERM or a loss that is not finite.

    tokens: what went through the model so far, counted as it goes in; of_all: what will have at the end.
    """

    def __init__(
        self,
        curve: _Curve,
        report: Report,
        steps: int,
        of_all: int,
        seconds_before: float,
        tokens_before: int,
        objective: Objective,
        probe: UsageProbe,
    ) -> None:
        self.curve, self.report, self.steps = curve, report, steps
        self.tokens, self.of_all = tokens_before, of_all
        self.clipped = False
        self.objective, self.probe = objective, probe
        self.sums: dict[str, torch.Tensor] = {}  # terms of the loss since the last row; a checkpoint is made at a row
        self.noted = 0
        self.seconds_before, self.started = seconds_before, time.monotonic()
        self.stopped, self.step, self.last_loss = False, 0, math.nan
        self._since: tuple[float, int] | None = None

    def seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self.started

    def note(self, terms: dict[str, torch.Tensor], tokens: int) -> None:
        self.noted += 1
        self.tokens += tokens
        for name, term in terms.items():
            self.sums[name] = self.sums[name] + term if name in self.sums else term

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        self.step = state.global_step
        if not self.clipped:
            raise HarnessError(
                f"transformers {transformers.__version__} no longer clips gradients where this harness replaces it: "
                "install the version that constraints.txt names"
            )
        self.clipped = False
        self.report(self.tokens, self.of_all, "tokens")
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
        now = time.monotonic()
        terms = self._means()
        loss = terms.pop("cross_entropy")
        values = {"loss": loss, "lr": float(logs["learning_rate"]), "gradient_norm": float(logs["grad_norm"])}
        if terms.keys() != {"objective"}:  # else it is the cross entropy
            values |= terms
        if self._since:
            before, tokens = self._since
            values["tokens_per_second"] = (self.tokens - tokens) / (now - before)
        self._since = (now, self.tokens)
        self.last_loss = loss
        finite = math.isfinite(terms["objective"])
        if finite and state.global_step % probe_every(self.steps, int(args.logging_steps)) == 0:
            values |= self.probe.measure(kwargs["model"])
        self.curve.append(state.global_step, self.tokens, values)
        self._check(terms["objective"])

    def _means(self) -> dict[str, float]:
        """Of the terms since the last row."""
        means = {name: float(total) / self.noted for name, total in self.sums.items()}
        self.sums, self.noted = {}, 0
        return means

    def _check(self, objective: float) -> None:
        if not math.isfinite(objective):
            says = f"the training loss became {objective} at step {self.step}: lower the learning rates"
            raise Diverged(says, self.tokens)

    def check_rest(self) -> None:
        """At the end: the steps after the last row, which are all where a training has fewer than a row's."""
        if self.noted:
            terms = self._means()
            self._check(terms["objective"])
            if math.isnan(self.last_loss):
                self.last_loss = terms["cross_entropy"]

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        self.probe.save(folder)
        mark = {"step": state.global_step, "seconds": self.seconds(), "tokens": self.tokens, "mu": self.objective.mu}
        (folder / _MARK).write_text(json.dumps(mark))


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
