"""What the last digits of a result depend on besides the code."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Numerics:
    """Where tensors are, in which format models compute, and how many threads share a product."""

    device: str
    dtype: str
    threads: int

    def as_config(self) -> dict[str, Any]:
        """For the key of a stage."""
        kernels = os.environ.get("HARNESS_KERNELS", "")
        return {**dataclasses.asdict(self), "kernels": kernels}
