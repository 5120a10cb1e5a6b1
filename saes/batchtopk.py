"""Batch top-k: a batch of B tokens keeps its k·B largest activations (Bussmann et al. 2024, arXiv 2412.06410)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kernels.sparse_dictionary import decode_rows, encode_batch_topk
from saes.dictionary import Weights
from saes.registry import register
from saes.thresholds import JumpReLU, one_threshold
from saes.training_dictionary import DictionaryConfig, Selected, Shape, TrainingDictionary


@dataclass(frozen=True, kw_only=True)
class BatchTopKConfig(DictionaryConfig):
    """Batch top-k with aux_k, the baseline that Mutual Choice is compared with. At inference one global threshold, set
    on held-out tokens so that k latents fire per token; saved as jumprelu. k need not be whole."""

    def build(self, shape: Shape, generator: torch.Generator) -> TrainingBatchTopK:
        return TrainingBatchTopK(self, shape, generator)


class TrainingBatchTopK(TrainingDictionary):
    """See `BatchTopKConfig`."""

    calibrates = True

    def select(self, x: Tensor, pre: Tensor) -> Selected:
        m = round(self.config.k * x.shape[0])
        return self.decoded(*encode_batch_topk(x, self.W_enc, self.b_enc, m, pre=pre))

    def decoded(self, indptr: Tensor, units: Tensor, values: Tensor) -> Selected:
        """Codes in compressed rows, rectified and decoded."""
        values = values.relu()
        return Selected(
            decoded=decode_rows(indptr, units, values, self.W_dec),
            fired=self.fired_counts(units[values > 0]),
            slots=units.numel(),
        )

    def inference_form(self, weights: Weights, held_out: Tensor | None) -> JumpReLU:
        assert held_out is not None
        threshold = one_threshold(weights, held_out, self.config.k)
        return JumpReLU(replace(weights, threshold=threshold), self.transcoder)


register("batchtopk", BatchTopKConfig)
