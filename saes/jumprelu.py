"""JumpReLU: a latent fires above a threshold of its own, which is learnt (Rajamanoharan et al. 2024, arXiv 2407.14435).

A step in the loss has no gradient, so the thresholds get an estimate: as if each step were a ramp, `bandwidth` wide and
centred on the threshold. It is 0 for all pre-activations outside the ramps, and this is what keeps a step sparse: only
what fires, or is on a ramp, is decoded at all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from kernels.sparse_dictionary import decode_rows, encode_positive
from saes.dictionary import Weights
from saes.registry import register
from saes.sparsity import TargetL0
from saes.thresholds import JumpReLU, one_threshold
from saes.training_dictionary import (
    DictionaryConfig,
    Selected,
    Shape,
    Standardisation,
    StepResult,
    TrainingDictionary,
)

DENSE_ABOVE = 1 / 16  # share of pre-activations that are decoded; above it products are faster, as for relu
# λ at the start, as a share of what would make a firing at the first threshold pay: one of strength θ explains at most
# θ²/d of the variance of a token and costs λ/k. Found by trial, one seed each: with five times as much, thresholds rise
# past their target and stay there (L0 a third too low on a small SynthSAEBench world, F1 0.57 where it was 0.62); with
# less, a short training is over before L0 has come down.
FIRST_PENALTY = 0.4


@dataclass(frozen=True, kw_only=True)
class JumpReLUConfig(DictionaryConfig):
    """zᵢ = πᵢ H(πᵢ − θᵢ) with π = W_encᵀ(x − b_dec) + b_enc, loss ‖x − x̂‖²/‖x − x̄‖² + λ/k · mean over tokens of
    Σᵢ H(πᵢ − θᵢ), which is L0.

    As in the paper: log θ is learnt, unit-norm decoder rows, a rectangle as kernel, and the penalty teaches thresholds
    only. Ours: λ is steered to the target L0 (see `sparsity.TargetL0`) instead of being a setting; aux_k for dead
    latents; a latent must be positive to be on its ramp; activations have norm √d and not 1, so thresholds and
    bandwidth are √d times the paper's. At inference all thresholds are multiplied by one number, set on held-out tokens
    so that k latents fire per token; saved as jumprelu.
    """

    bandwidth: float = field(
        default=1.0, metadata={"doc": "Width of the ramp that stands in for a step where thresholds learn."}
    )
    first_threshold: float = field(
        default=1.5,
        metadata={"doc": "Every threshold at the start, in standard deviations of what a random latent reads."},
    )
    l0_warmup_share: float = field(default=0.1, metadata={"doc": "Share of the training tokens while λ rises from 0."})

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("bandwidth", "first_threshold"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} {getattr(self, name)}: must be above 0")
        if not 0 <= self.l0_warmup_share < 1:
            raise ValueError(f"l0_warmup_share {self.l0_warmup_share}: must be at least 0 and below 1")

    def build(self, shape: Shape, generator: torch.Generator) -> TrainingJumpReLU:
        return TrainingJumpReLU(self, shape, generator)


class TrainingJumpReLU(TrainingDictionary):
    """See `JumpReLUConfig`."""

    config: JumpReLUConfig
    calibrates = True

    def __init__(self, config: JumpReLUConfig, shape: Shape, generator: torch.Generator) -> None:
        super().__init__(config, shape, generator)
        self.log_threshold = nn.Parameter(torch.full((config.n_latents,), math.log(config.first_threshold)))
        pays = config.first_threshold**2 * config.k / shape.d_out
        self.penalty = TargetL0(config.k, FIRST_PENALTY * pays, config.l0_warmup_share)
        # Share of all pre-activations that the last step had to decode.
        self.last_share: Tensor
        self.register_buffer("last_share", torch.ones((), dtype=torch.float64))

    @property
    def dense(self) -> bool:
        return float(self.last_share) > DENSE_ABOVE

    def prepare(self, progress: float) -> None:
        self.penalty.prepare(progress)

    def note_usage(self, result: StepResult) -> None:
        super().note_usage(result)
        self.last_share.fill_(result.slots / (result.tokens * self.config.n_latents))
        self.penalty.observe(float(result.l0))

    def select(self, x: Tensor, pre: Tensor) -> Selected:
        threshold = self.log_threshold.exp()
        floor = (threshold.detach() - self.config.bandwidth / 2).clamp_min(0)  # below it nothing fires or teaches
        if self.dense:
            z, fires = _Jump.apply(pre, threshold.expand_as(pre), self.config.bandwidth)
            decoded, fired = z @ self.W_dec, (fires > 0).sum(0)
            entries = int((pre.detach() > floor).sum())
        else:
            with torch.no_grad():
                kept = torch.where(pre > floor, pre, torch.zeros_like(pre))
            indptr, units, values = encode_positive(x, self.encoder(), self.b_enc, pre=kept)
            # index_select, whose gradient is summed in a fixed order; that of indexing is not.
            z, fires = _Jump.apply(values, threshold.index_select(0, units), self.config.bandwidth)
            decoded, fired = decode_rows(indptr, units, z, self.W_dec), self.fired_counts(units[fires > 0])
            entries = units.numel()
        return Selected(
            decoded=decoded,
            fired=fired,
            slots=entries,
            penalty=fires.sum() * (self.penalty.coefficient() / (x.shape[0] * self.config.k)),
        )

    @torch.no_grad()
    def weights(self, x: Standardisation, target: Standardisation) -> Weights:
        return replace(super().weights(x, target), threshold=self.log_threshold.exp() / target.scale)

    def inference_form(self, weights: Weights, held_out: Tensor | None) -> JumpReLU:
        assert held_out is not None
        threshold = one_threshold(weights, held_out, self.config.k, weights.threshold)
        return JumpReLU(replace(weights, threshold=threshold), self.transcoder)


class _Jump(torch.autograd.Function):
    """(π H(π − θ), H(π − θ)), elementwise. Gradients: exact with respect to π, of the jump only; with respect to θ
    −(θ/ε) K and −(1/ε) K, with K 1 where |π − θ| < ε/2 and π > 0, and 0 elsewhere."""

    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, bandwidth: float) -> tuple[Tensor, Tensor]:
        fires = (pre > threshold).to(pre)
        ctx.save_for_backward(pre, threshold, fires)
        ctx.bandwidth = bandwidth
        return pre * fires, fires

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        by_value, by_fires = gradients
        pre, threshold, fires = ctx.saved_tensors
        on_ramp = ((pre - threshold).abs() < ctx.bandwidth / 2) & (pre > 0)
        by_threshold = -(threshold * by_value + by_fires) * on_ramp / ctx.bandwidth
        return by_value * fires, by_threshold, None


register("jumprelu", JumpReLUConfig)
