"""What training a subject took, as it lies in the subject's folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from harness.systems.cost import Cost

CURVE_FILE = "curve.jsonl"


@dataclass(frozen=True)
class TrainingRecord:
    """What training a subject took. Times are wall seconds and CPU seconds (of all threads of the process) on this
    machine, over all parts of an interrupted run.

    tokens: those that went through the model. training_flops holds all of it: teacher_flops, the part that a teacher's
    training and its forward passes took, too. An untrained subject has 0 tokens. peak_memory_bytes: None where it
    cannot be told (`memory.py`). floor: c of a target with a floor, and the μ it ended with.
    """

    tokens: int
    steps: int
    parameters: int
    active_parameters: int
    forward_flops_per_token: float
    training_flops: float
    seconds: float
    cpu_seconds: float
    tokens_per_second: float
    peak_memory_bytes: int | None
    final_loss: float | None
    kernels: dict[str, str]
    teacher_flops: float = 0.0
    floor: float | None = None
    mu: float | None = None

    @staticmethod
    def untrained(
        parameters: int, active_parameters: int, forward_flops_per_token: float, training_flops: float = 0.0
    ) -> TrainingRecord:
        """Of a model that nobody trained here. training_flops: NaN where others trained it, and what it took is not
        known."""
        return TrainingRecord(
            tokens=0,
            steps=0,
            parameters=parameters,
            active_parameters=active_parameters,
            forward_flops_per_token=forward_flops_per_token,
            training_flops=training_flops,
            seconds=0.0,
            cpu_seconds=0.0,
            tokens_per_second=0.0,
            peak_memory_bytes=None,
            final_loss=None,
            kernels={},
        )

    @staticmethod
    def load(folder: Path) -> TrainingRecord:
        return TrainingRecord(**json.loads((folder / "training.json").read_text()))

    def cost(self) -> Cost:
        """As the cost of a system."""
        return Cost(
            parameters=self.parameters,
            active_parameters=self.active_parameters,
            forward_flops_per_token=self.forward_flops_per_token,
            training_flops=self.training_flops,
            training_tokens=self.tokens,
            training_seconds=self.seconds,
            training_cpu_seconds=self.cpu_seconds,
            peak_memory_bytes=self.peak_memory_bytes,
        )
