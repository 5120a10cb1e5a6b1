"""Feature Choice: every latent keeps its own number of tokens of a batch (Ayonrinde 2024, arXiv 2411.02124)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from kernels.sparse_dictionary import encode_column_topk
from saes.auxiliary import zipf_densities
from saes.dictionary import Weights
from saes.mutual_choice import MutualChoiceConfig, TrainingMutualChoice
from saes.registry import register
from saes.thresholds import JumpReLU, threshold_per_latent
from saes.training_dictionary import Selected, Shape


@dataclass(frozen=True, kw_only=True)
class FeatureChoiceConfig(MutualChoiceConfig):
    """Mutual Choice first, then latent i keeps its mᵢ best tokens of every batch, Σ mᵢ = k·B, mᵢ ∝ rankᵢ^(−exponent).

    Ranks are those of the densities when Mutual Choice ends, and stay. At inference one threshold per latent, set on
    held-out tokens so that it fires on its share of them; saved as jumprelu. The paper's body could not be read: order
    of the phases, budgets and thresholds are ours. A chosen affinity that is not positive does not fire, so L0 is at
    most k.
    """

    mutual_choice_share: float = field(
        default=0.5, metadata={"doc": "Share of the training tokens spent on Mutual Choice before Feature Choice."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.mutual_choice_share < 1:
            raise ValueError(f"mutual_choice_share {self.mutual_choice_share}: must be above 0 and below 1")

    def build(self, shape: Shape, generator: torch.Generator) -> TrainingFeatureChoice:
        return TrainingFeatureChoice(self, shape, generator)


class TrainingFeatureChoice(TrainingMutualChoice):
    """See `FeatureChoiceConfig`."""

    config: FeatureChoiceConfig  # pyright: ignore[reportIncompatibleVariableOverride] (only ever read)

    def __init__(self, config: FeatureChoiceConfig, shape: Shape, generator: torch.Generator) -> None:
        super().__init__(config, shape, generator)
        # Density that each latent may fire with; 0 everywhere while Mutual Choice lasts.
        self.allowed: Tensor
        self.register_buffer("allowed", torch.zeros(config.n_latents, dtype=torch.float64))

    @torch.no_grad()
    def prepare(self, progress: float) -> None:
        if progress >= self.config.mutual_choice_share and not bool(self.allowed.any()):
            order = self.density().sort(descending=True, stable=True).indices
            line = zipf_densities(self.config.n_latents, self.config.k, self.config.zipf_exponent)
            self.allowed[order] = line.to(self.allowed)

    def select(self, x: Tensor, pre: Tensor) -> Selected:
        if not bool(self.allowed.any()):
            return super().select(x, pre)
        m = budgets(self.allowed, x.shape[0])
        return self.decoded(*encode_column_topk(x, self.W_enc, self.b_enc, m, pre=pre))

    def inference_form(self, weights: Weights, held_out: Tensor | None) -> JumpReLU:
        assert held_out is not None
        self.prepare(1.0)  # where the budget was too short for its own phase, no latent has a share yet
        threshold = threshold_per_latent(weights, held_out, self.allowed)
        return JumpReLU(replace(weights, threshold=threshold), self.transcoder)


def budgets(density: Tensor, tokens: int) -> Tensor:
    """`[n]` int64: tokens of `tokens` each latent may have, by largest remainder, Σ = round(tokens · Σ density).

    When there are enough for all, none gets less than one: a latent without a token would be dead by decree.
    """
    total = round(tokens * float(density.sum()))
    exact = density * tokens
    if total >= density.numel():
        # One each, and the rest in proportion to what is left of the exact budgets.
        wish = (exact - 1).clamp_min(0)
        exact = 1 + wish * ((total - density.numel()) / wish.sum().clamp_min(1e-300))
    m = exact.floor().long().clamp_max(tokens)
    remainder = torch.where(m < tokens, exact - m, torch.full_like(exact, -1.0))
    m[remainder.sort(descending=True, stable=True).indices[: total - int(m.sum())]] += 1
    return m


register("feature_choice", FeatureChoiceConfig)
