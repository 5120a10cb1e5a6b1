"""TopK: every token keeps its k largest latents (Gao et al. 2024, arXiv 2406.04093)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from kernels.codes import Codes
from kernels.selection import topk
from kernels.sparse_dictionary import decode_slots, encode_topk
from saes.dictionary import EncoderDecoder, Weights
from saes.registry import register
from saes.training_dictionary import DictionaryConfig, Selected, Shape, TrainingDictionary


@dataclass(frozen=True, kw_only=True)
class TopKConfig(DictionaryConfig):
    """TopK with aux_k: z = ReLU(TopK(W_encᵀ(x − b_dec) + b_enc)), x̂ = z W_dec + b_dec (arXiv 2406.04093, eq. 1-2).

    Unit-norm decoder rows, W_enc = W_decᵀ at the start. In the paper the ReLU is optional; here it is always applied,
    so that no latent is negative (as in SAELens).
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k != int(self.k):
            nearest = max(1, round(self.k))
            raise ValueError(f"k {self.k}: every token keeps a whole number of latents (nearest: {nearest})")

    def build(self, shape: Shape, generator: torch.Generator) -> TrainingTopK:
        return TrainingTopK(self, shape, generator)


class TrainingTopK(TrainingDictionary):
    """See `TopKConfig`."""

    def select(self, x: Tensor, pre: Tensor) -> Selected:
        units, values = encode_topk(x, self.W_enc, self.b_enc, int(self.config.k), pre=pre)
        values = values.relu()
        return Selected(
            decoded=decode_slots(units, values, self.W_dec),
            fired=self.fired_counts(units[values > 0]),
            slots=units.numel(),
        )

    def inference_form(self, weights: Weights, held_out: Tensor | None) -> TopK:
        return TopK(weights, int(self.config.k), self.transcoder)


class TopK(EncoderDecoder):
    """Inference: of each token's exact k largest pre-activations those that are positive."""

    architectures: ClassVar[tuple[str, str, str]] = ("topk", "topk_transcoder", "topk_skip_transcoder")

    def __init__(self, weights: Weights, k: int, transcoder: bool = False) -> None:
        super().__init__(weights, transcoder)
        self.k = k

    def select(self, pre: Tensor, rows: Tensor) -> Codes:
        values, units = topk(pre, self.k)
        return Codes.from_slots(units, values.relu(), rows, self.n_units)

    def file_config(self) -> dict[str, Any]:
        return {"k": self.k, "rescale_acts_by_decoder_norm": False}

    @classmethod
    def from_file(cls, weights: Weights, config: dict[str, Any], transcoder: bool) -> TopK:
        if not isinstance(config.get("k"), int):
            raise ValueError("has no k, the latents that a token keeps")
        return cls(weights, config["k"], transcoder)


register("topk", TopKConfig)
