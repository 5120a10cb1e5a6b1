"""What a system took to make and takes to run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """What a system took, all of it counted: the subject, collecting activations, and its dictionaries."""

    parameters: int
    active_parameters: int
    forward_flops_per_token: float
    training_flops: float
    training_tokens: int
    training_seconds: float
    training_cpu_seconds: float  # of all threads of the process
    peak_memory_bytes: int | None  # None: it could not be told
