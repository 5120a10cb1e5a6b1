"""Mutual Choice: of all token–latent affinities of a batch keep the largest k·B (Ayonrinde 2024, arXiv 2411.02124)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from saes.auxiliary import under_used
from saes.batchtopk import TrainingBatchTopK
from saes.registry import register
from saes.training_dictionary import DictionaryConfig, Shape


@dataclass(frozen=True, kw_only=True)
class MutualChoiceConfig(DictionaryConfig):
    """Batch top-k with aux_zipf in the place of aux_k.

    The paper's body could not be read: the selection is its abstract's, aux_zipf and both of its settings are ours.
    """

    zipf_exponent: float = field(
        default=0.5, metadata={"doc": "Expected usage of the latent of rank r falls as r to the minus this."}
    )
    under_used_share: float = field(
        default=0.1, metadata={"doc": "aux_zipf teaches latents used less than this share of what their rank expects."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.zipf_exponent < 0:
            raise ValueError(f"zipf_exponent {self.zipf_exponent}: must be 0 or above")
        if not 0 <= self.under_used_share <= 1:
            raise ValueError(f"under_used_share {self.under_used_share}: must be between 0 and 1")

    def build(self, shape: Shape, generator: torch.Generator) -> TrainingMutualChoice:
        return TrainingMutualChoice(self, shape, generator)


class TrainingMutualChoice(TrainingBatchTopK):
    """See `MutualChoiceConfig`."""

    config: MutualChoiceConfig

    def under_used(self) -> Tensor:
        # Until densities have been averaged over `dead_after_tokens` tokens they say little.
        if float(self.density_weight) < 1 - math.exp(-1):
            return torch.zeros_like(self.tokens_since_fired, dtype=torch.bool)
        return under_used(self.density(), self.config.k, self.config.zipf_exponent, self.config.under_used_share)


register("mutual_choice", MutualChoiceConfig)
