"""What training will take on this machine: seconds and bytes, before it runs."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass

import psutil
import torch
from torch import nn

import models
from harness.experiment.budget import size_of
from harness.experiment.matching import Line
from harness.experiment.rows import SubjectSpec
from harness.experiment.schema import Experiment
from harness.run.plan import Plan, PlannedRow
from harness.store.stages import Store
from harness.training.objective import Objective
from harness.training.optimizer import MuonAdamW, clip_gradients
from harness.training.record import TrainingRecord
from harness.training.trials import Choice

log = logging.getLogger(__name__)

_STEPS = 2  # timed, after one that compiles kernels; the faster one counts
_BYTES_PER_PARAMETER = 16  # float32: itself, its gradient, two moments


@dataclass(frozen=True)
class RowEstimate:
    """Of one row and seed. seconds: of what is its own (a stage that several rows share is counted at the first).
    source: where the seconds come from. memory: bytes of tensors while the subject trains."""

    seconds: float
    source: str
    memory: int


def estimates(plan: Plan, store: Store) -> dict[str, RowEstimate]:
    """For every row, one seed. Seconds of subjects: `stored` where the very stage is in the store; else `timed`, on two
    training steps with random tokens here and now. A model that may not fit in memory is not tried: its seconds are its
    FLOPs at the speed of the slowest other (`by FLOPs`). Dictionaries: their and their collecting FLOPs at the speed of
    their subject. Trials that are still to be made are included, each seed with an equal part of them; measuring the
    metrics is not."""
    found: dict[str, RowEstimate] = {}
    speeds: dict[str, tuple[float, str]] = {}  # FLOPs a second, by the subject's stage
    charged: set[str] = set()
    lines = {line.spec.name: line for line in plan.matching.lines}
    for row in plan.rows:
        if row.spec.name in found:
            continue
        line = lines[row.spec.name]
        memory = training_memory(line, plan.experiment)
        own = 0.0 if row.subject.key in charged else line.budget.subject_flops
        own += 0.0 if row.subject.key in charged else _teacher_forward_flops(line, plan.experiment)
        charged.add(row.subject.key)
        own += line.budget.collecting_flops + line.budget.dictionary_flops
        own += _trials_to_come(plan.choices.get(row.spec.name)) / len(plan.experiment.seeds)
        if not own:  # says nothing about the speed at which other rows of the subject train
            found[row.spec.name] = RowEstimate(0.0, "nothing to train", memory)
            continue
        if row.subject.key not in speeds:
            speeds[row.subject.key] = _speed(row, plan, store, memory, speeds)
        speed, source = speeds[row.subject.key]
        found[row.spec.name] = RowEstimate(own / speed, source, memory)
    return found


def _trials_to_come(choice: Choice | None) -> float:
    return 0.0 if choice is None else choice.planned_flops - choice.flops


def training_memory(line: Line, experiment: Experiment) -> int:
    """Bytes: parameters with gradients and moments, and of a step's tensors the logits (three of their size) and in
    every layer about 24 of the residual's. Without Python and libraries, which are about a gigabyte."""
    subject = line.spec.subject
    config = subject.config
    tokens = subject.training.batch_sequences * experiment.corpus.sequence_length
    step = 4 * tokens * (3 * experiment.corpus.vocab_size + 24 * config.n_layers * config.d_model)
    return _BYTES_PER_PARAMETER * line.budget.size.parameters + step


def _teacher_forward_flops(line: Line, experiment: Experiment) -> float:
    """The part of the teacher's FLOPs that the student's run spends; the teacher's training is a row of its own."""
    subject = line.spec.subject
    if subject.teacher is None or subject.training.target.kind != "kl":
        return 0.0
    if not isinstance(subject.teacher, SubjectSpec):
        return line.budget.teacher_flops
    length = experiment.corpus.sequence_length
    tokens = subject.training.steps(length) * subject.training.batch_sequences * length
    return size_of(subject.teacher, experiment).forward_flops * tokens


def _speed(
    row: PlannedRow, plan: Plan, store: Store, memory: int, known: dict[str, tuple[float, str]]
) -> tuple[float, str]:
    """FLOPs a second, and where that comes from; `known`: those of the other subjects."""
    folder, size = store.root / row.subject.folder, size_of(row.spec.subject, plan.experiment)
    if not row.spec.subject.untrained and (folder / "training.json").is_file():
        record = TrainingRecord(**json.loads((folder / "training.json").read_text()))
        own = size.step_flops * record.steps + 3 * record.forward_flops_per_token * record.tokens
        return own / record.seconds, "stored"
    if memory > 0.5 * psutil.virtual_memory().available:
        slowest = min((speed for speed, _ in known.values()), default=1e10)
        return slowest, "by FLOPs"
    log.info("timing %s", row.spec.subject.name)
    seconds = _step_seconds(row.spec.subject, plan.experiment, plan.numerics.device)
    tokens = row.spec.subject.training.batch_sequences * plan.experiment.corpus.sequence_length
    return (3 * size.forward_flops * tokens + size.step_flops) / seconds, "timed"


def _step_seconds(subject: SubjectSpec, experiment: Experiment, device: str) -> float:
    corpus, training = experiment.corpus, subject.training
    torch.manual_seed(0)
    model = models.build(
        subject.architecture,
        **subject.settings,
        vocab_size=corpus.vocab_size,
        max_position_embeddings=corpus.sequence_length,
    )
    nn.Module.to(model, device)
    plain = training.model_copy(update={"target": type(training).model_fields["target"].default})
    objective = Objective(plain)
    optimizer = MuonAdamW(model, model.parameter_roles(), training)
    ids = torch.randint(corpus.vocab_size, (training.batch_sequences, corpus.sequence_length)).to(device)
    seconds = []
    for _ in range(1 + _STEPS):
        started = time.perf_counter()
        objective(model, ids, ids).backward()
        clip_gradients(model.parameters(), training.clip)
        optimizer.step()
        optimizer.zero_grad()
        if ids.is_cuda:
            torch.cuda.synchronize(ids.device)  # else what was timed is how fast work is handed over
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])
