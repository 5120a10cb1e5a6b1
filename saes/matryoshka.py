"""Matryoshka: the first latents alone must reconstruct too (Bussmann et al. 2025, arXiv 2503.17547), with batch top-k.

What prefixes reconstruct costs as much as what all latents do. Every entry of the codes lies in one segment, between
the end of one prefix and the end of the next. One pass decodes each segment by itself, as if a token were as many
tokens; their running sums are the reconstructions of the prefixes. Decoding prefix after prefix would go through the
first latents once for each.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from kernels.sparse_dictionary import decode_rows, encode_batch_topk
from saes.batchtopk import BatchTopKConfig, TrainingBatchTopK
from saes.registry import register
from saes.training_dictionary import Selected, Shape

# Prefixes by default, as shares of the width: those of SynthSAEBench (128, 512, 2,048 of 4,096; arXiv 2602.14687).
SHARES = (1 / 32, 1 / 8, 1 / 2)


@dataclass(frozen=True, kw_only=True)
class MatryoshkaConfig(BatchTopKConfig):
    """Batch top-k whose loss is the sum over prefixes m of ‖x − x̂ₘ‖²/‖x − x̄‖², x̂ₘ = Σ_{i<m} zᵢ w_dec,i + b_dec; the
    last prefix is the whole dictionary.

    Latents are selected once, among all, and a prefix uses those of them that it holds, as in the paper and SAELens.
    The sum has no weights, as there; aux_k sees what the whole dictionary leaves over (SAELens can do so level by
    level, which SynthSAEBench's runs did). The paper draws no prefixes at random, and neither do we. Inference and
    format are batch top-k's.
    """

    widths: tuple[int, ...] | None = field(
        default=None,
        metadata={"doc": "Nested prefixes, ascending; None: 1/32, 1/8 and 1/2 of the width. All is added."},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        widths = self.widths
        if widths is not None and (
            not widths
            or any(later <= earlier for earlier, later in zip((0, *widths), widths, strict=False))
            or widths[-1] > self.n_latents
        ):
            raise ValueError(f"widths {list(widths)}: must ascend from above 0 to at most n_latents {self.n_latents}")

    def prefixes(self) -> tuple[int, ...]:
        """Widths of all levels; the last is `n_latents`."""
        if self.widths is None:
            inner = sorted({round(share * self.n_latents) for share in SHARES} - {0, self.n_latents})
        else:
            inner = [width for width in self.widths if width < self.n_latents]
        return (*inner, self.n_latents)

    def build(self, shape: Shape, generator: torch.Generator) -> TrainingMatryoshka:
        return TrainingMatryoshka(self, shape, generator)


class TrainingMatryoshka(TrainingBatchTopK):
    """See `MatryoshkaConfig`."""

    config: MatryoshkaConfig

    def select(self, x: Tensor, pre: Tensor) -> Selected:
        m = round(self.config.k * x.shape[0])
        indptr, units, values = encode_batch_topk(x, self.W_enc, self.b_enc, m, pre=pre)
        values = values.relu()
        *inner, whole = self.decoded_by_prefix(indptr, units, values)
        return Selected(
            decoded=whole,
            fired=self.fired_counts(units[values > 0]),
            slots=units.numel(),
            prefixes=tuple(inner),
        )

    def decoded_by_prefix(self, indptr: Tensor, units: Tensor, values: Tensor) -> tuple[Tensor, ...]:
        """What each prefix decodes, `[tokens, d_out]` each, from compressed rows whose units ascend."""
        widths = torch.tensor(self.config.prefixes(), device=units.device)
        tokens, levels = indptr.numel() - 1, widths.numel()
        token = torch.repeat_interleave(indptr.diff(), output_size=units.numel())
        segment = torch.bucketize(units, widths, right=True)  # [entries]
        # Units ascend within a token, so entries already lie by segment: only where each ends is new.
        ends = torch.bincount(token * levels + segment, minlength=tokens * levels).cumsum(0)
        parts = decode_rows(torch.cat([ends.new_zeros(1), ends]), units, values, self.W_dec)
        return parts.view(tokens, levels, -1).cumsum(1).unbind(1)


register("matryoshka", MatryoshkaConfig)
