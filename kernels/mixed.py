"""Operands of different precision: an op computes in the widest of them and answers in its input's.

Under autocast a layer's input comes in bfloat16 and its tables stay in float32. What torch's own products do there,
casting everything down, would copy a table of a million rows at every call, and no CPU kernel of ours reads bfloat16.
So our ops leave autocast and widen what they are given.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def widened(*tensors: Tensor) -> list[Tensor]:
    """The tensors in the widest of their floating-point types (float16 with bfloat16: float32). Differentiable."""
    widest = functools.reduce(torch.promote_types, (tensor.dtype for tensor in tensors))
    return [tensor if tensor.dtype == widest else tensor.to(widest) for tensor in tensors]


def outside_autocast(op: Callable[P, R]) -> Callable[P, R]:
    """The op as it is without autocast: its own products stay in the type that it chose."""

    @functools.wraps(op)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        for device in ("cuda", "cpu"):
            if torch.is_autocast_enabled(device):
                with torch.autocast(device, enabled=False):
                    return run(*args, **kwargs)
        return op(*args, **kwargs)

    return run
