"""What training gives: a finished dictionary with what it cost, and the lines of its curve."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from saes.dictionary import Dictionary
from saes.quality import Quality


@dataclass(frozen=True)
class CurveRow:
    """One line of `curve.jsonl`: the batch at `step`, before its update. As trained, not as at inference."""

    step: int
    tokens: int
    loss: float
    explained_variance: float
    l0: float
    dead_share: float
    auxiliary: float
    lr: float
    tokens_per_second: float


@dataclass(frozen=True)
class Trained:
    """A finished dictionary and what it cost.

    training_flops: its own steps (see TrainingDictionary.flops). collecting_flops: the subject's forward passes. A pass
    shared by several dictionaries is charged to each in full: alone it would have needed it. seconds: of its own steps,
    its share where several learnt at once; collecting_seconds: the shared pass; cpu_seconds, collecting_cpu_seconds:
    the same in CPU time of all threads. On held-out tokens, None without them: as_trained_half and as_trained select as
    in training, at half and at the full budget; at_inference is the saved dictionary.
    """

    dictionary: Dictionary
    folder: Path
    tokens: int
    training_flops: float
    collecting_flops: float
    seconds: float
    cpu_seconds: float
    collecting_seconds: float
    collecting_cpu_seconds: float
    as_trained_half: Quality | None
    as_trained: Quality | None
    at_inference: Quality | None
