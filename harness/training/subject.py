"""Training a subject: transformers' Trainer, so that a killed run continues on the same curve to the bit."""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedModel, Trainer, TrainerCallback

from harness.base.errors import Diverged, Interrupted
from harness.base.progress import Report
from harness.base.stop import STOP
from harness.training.arguments import OneDevice
from harness.training.config import Distillation, Floor, TrainingConfig
from harness.training.memory import DeviceMemory
from harness.training.objective import Objective, dev_cross_entropy, forward_flops_per_token
from harness.training.optimizer import MuonAdamW, clip_gradients, step_flops
from harness.training.order import Sequences
from harness.training.probe import UsageProbe
from harness.training.record import CURVE_FILE, TrainingRecord
from harness.training.watcher import Before, Watcher
from kernels import dispatch
from models.trunk import TrunkForCausalLM

if TYPE_CHECKING:
    from transformers import TrainingArguments

    from harness.corpus import PackedSplit

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Teacher:
    """A trained model on the student's device, and the FLOPs that its training took (0 where nobody knows)."""

    model: PreTrainedModel
    training_flops: float


def train_subject(
    model: TrunkForCausalLM,
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

    FLOPs are 3 × forward per token (the backward pass counts twice the forward one) and the optimiser's products in
    every step; for KL also one forward pass of the teacher per token and all that its own training took; a floor under
    the teacher's loss is charged for that too.

    In the curve `loss` is always the next-token cross entropy, mean over the steps since the last row; `objective`,
    where it is another, is what was minimised.
    Raises Interrupted after a checkpoint when SIGTERM was received, Diverged when the loss is no longer finite.
    """
    steps, objective, probe = config.steps(split.length), _objective(config, teacher, dev), UsageProbe(split)
    before = Before.found(work / "checkpoint", objective, probe, steps)
    memory = DeviceMemory.watch(device, model, *([teacher.model] if teacher else []))
    sequences = Sequences(split, steps * config.batch_sequences, seed)
    watcher = Watcher(work / CURVE_FILE, report, steps, len(sequences) * split.length, before, objective, probe)
    optimizer = MuonAdamW(model, model.parameter_roles(), config)
    trainer = _Trainer(
        objective=objective,
        watcher=watcher,
        model=model,
        args=_arguments(config, steps, seed, work / "checkpoint", device, dtype),
        train_dataset=sequences,
        optimizers=(optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, _Schedule(steps, config.warmup))),
    )
    trainer.remove_callback(_printer())
    per_token, per_step = 3.0 * forward_flops_per_token(model, split.length), step_flops(model)
    tokens_of_step = config.batch_sequences * split.length
    kernels = _fit(trainer, watcher, before.checkpoint, per_token + per_step / tokens_of_step)
    model.save_pretrained(work / "model")
    shutil.rmtree(work / "checkpoint", ignore_errors=True)
    taught = _taught(config, teacher, split.length, watcher.tokens)
    record = TrainingRecord(
        **_size(model, split.length),
        **watcher.took(),
        training_flops=per_token * watcher.tokens + per_step * steps + taught,
        peak_memory_bytes=memory.peak() if memory else None,
        final_loss=watcher.last_loss,
        kernels=kernels,
        teacher_flops=taught,
        floor=objective.floor,
        mu=objective.mu if objective.floor is not None else None,
    )
    return _recorded(record, work)


def _fit(trainer: Trainer, watcher: Watcher, checkpoint: Path | None, flops_per_token: float) -> dict[str, str]:
    """Trains to the end, or raises Interrupted or Diverged. Op → implementation that ran."""
    STOP.training = True
    try:
        with dispatch.recording() as kernels:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        watcher.check_rest()
    except Diverged as error:
        error.training_flops = flops_per_token * error.tokens
        raise
    finally:
        STOP.training = False
    if watcher.stopped:
        raise Interrupted(f"stopped at step {watcher.step} of {watcher.steps}; run the same command to continue there")
    return dict(kernels)


def _arguments(
    config: TrainingConfig, steps: int, seed: int, checkpoints: Path, device: str, dtype: str
) -> TrainingArguments:
    # A checkpoint between two points of the curve would lose the running mean of the loss.
    interval = max(1, steps // (config.checkpoints + 1))
    return OneDevice(
        output_dir=str(checkpoints),
        max_steps=steps,
        per_device_train_batch_size=config.batch_sequences,
        max_grad_norm=config.clip,
        seed=seed,
        train_sampling_strategy="sequential",  # the order is that of Sequences
        logging_steps=config.log_every,
        logging_nan_inf_filter=False,
        save_strategy="steps" if config.checkpoints else "no",
        save_steps=math.ceil(interval / config.log_every) * config.log_every,
        save_total_limit=2,  # the newest may have been cut off while it was written
        on=device,
        bf16=dtype == "bfloat16",
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=device != "cpu",
    )


def _taught(config: TrainingConfig, teacher: Teacher | None, length: int, tokens: int) -> float:
    """FLOPs of the teacher: of its own training, and of the passes that this one made with it."""
    if teacher is None:
        return 0.0
    passes = forward_flops_per_token(teacher.model, length) * tokens if isinstance(config.target, Distillation) else 0.0
    return teacher.training_flops + passes


def _size(model: TrunkForCausalLM, length: int) -> dict[str, Any]:
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "active_parameters": model.active_parameters(),
        "forward_flops_per_token": forward_flops_per_token(model, length),
    }


def save_untrained(model: TrunkForCausalLM, sequence_length: int, work: Path) -> TrainingRecord:
    """The control that was never trained: leaves what `train_subject` leaves, with an empty curve."""
    model.save_pretrained(work / "model")
    (work / CURVE_FILE).write_text("")
    return _recorded(TrainingRecord.untrained(**_size(model, sequence_length)), work)


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

    def __init__(self, *, objective: Objective, watcher: Watcher, **kwargs: Any) -> None:
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


def _printer() -> type[TrainerCallback]:
    """The callback with which Trainer prints every log row to standard output."""
    from transformers.trainer_callback import PrinterCallback

    return PrinterCallback
