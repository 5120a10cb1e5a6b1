"""A sparsity penalty's coefficient, steered so that a target L0 comes out."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

# Found by trial on planted features: L0 arrives in time and does not swing. Higher gains drive the coefficient up
# faster than the dictionary can reorganise, and it ends with shrunk latents instead of few.
GAIN = 8.0
PROPORTIONAL = 0.5


class TargetL0(nn.Module):
    """λ such that L0 comes out at `target`: a penalty then has the same knob as a selection.

    log λ = a + PROPORTIONAL · e with e = log(L0/target), kept within ±1; a starts at log `start` and rises by
    GAIN · e over the whole training. During the first `warmup_share` of training λ rises from 0 and a stays.
    """

    def __init__(self, target: float, start: float, warmup_share: float) -> None:
        super().__init__()
        self.target, self.warmup_share = target, warmup_share
        self.progress = 0.0
        self.integral: Tensor
        self.error: Tensor
        self.integrated_to: Tensor
        for name, value in (("integral", math.log(start)), ("error", 0.0), ("integrated_to", warmup_share)):
            self.register_buffer(name, torch.tensor(value, dtype=torch.float64))

    @torch.no_grad()
    def prepare(self, progress: float) -> None:
        """Called before every step with the share of training that is over."""
        self.progress = progress
        if progress > float(self.integrated_to):
            self.integral += GAIN * (progress - self.integrated_to) * self.error
            self.integrated_to.fill_(progress)

    def coefficient(self) -> float:
        rise = min(1.0, self.progress / self.warmup_share) if self.warmup_share else 1.0
        return rise * math.exp(float(self.integral + PROPORTIONAL * self.error))

    def observe(self, l0: float) -> None:
        """Called after every step with the L0 of its batch."""
        self.error.fill_(max(-1.0, min(1.0, math.log(max(l0, 1e-3) / self.target))))
