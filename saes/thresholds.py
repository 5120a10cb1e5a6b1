"""Dictionaries whose latents fire above a threshold, and how thresholds are found on held-out tokens.

Selections over a batch (Mutual Choice, Feature Choice, batch top-k) have no meaning for one token alone; at inference a
latent fires where its pre-activation is above a threshold instead. An average over training batches lags behind the
weights (SAELens' starts at 0 and overshoots L0 after few steps), so thresholds are set once, when training has ended.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kernels.codes import Codes
from kernels.sparse_dictionary import preactivations
from saes.dictionary import EncoderDecoder, Weights

# Pre-activations held at a time: 128 MB in float32.
BLOCK_ELEMENTS = 2**25


class JumpReLU(EncoderDecoder):
    """Inference: a latent fires where its pre-activation is above its threshold (and above 0), with that value."""

    architectures: ClassVar[tuple[str, str, str]] = ("jumprelu", "jumprelu_transcoder", "jumprelu_skip_transcoder")
    tensors: ClassVar[tuple[str, ...]] = (*EncoderDecoder.tensors, "threshold")

    def __init__(self, weights: Weights, transcoder: bool = False) -> None:
        super().__init__(weights, transcoder)
        if weights.threshold is None:
            raise ValueError("a thresholded dictionary needs a threshold per latent")
        self.threshold = nn.Parameter(weights.threshold.detach().clone(), requires_grad=False)

    def select(self, pre: Tensor, rows: Tensor) -> Codes:
        return Codes.from_dense(torch.where(pre > self.threshold, pre.relu(), torch.zeros_like(pre)), rows)

    @classmethod
    def from_file(cls, weights: Weights, config: dict[str, Any], transcoder: bool) -> JumpReLU:
        return cls(weights, transcoder)


def one_threshold(weights: Weights, x: Tensor, per_token: float, relative_to: Tensor | None = None) -> Tensor:
    """`[n_units]`, all equal: the threshold above which `per_token` latents fire per token of x `[tokens, d_in]`, on
    average. 0 when fewer are positive. relative_to: thresholds `[n_units]`, all above 0, that are multiplied by one
    number instead."""
    wanted = round(per_token * x.shape[0])
    largest = x.new_zeros(0)
    for rows in x.split(max(1, BLOCK_ELEMENTS // weights.b_enc.numel())):
        pre = preactivations(rows, weights.W_enc, weights.b_enc)
        pre = (pre if relative_to is None else pre / relative_to).flatten()
        largest = torch.cat([largest, pre[pre > 0]])
        if largest.numel() > wanted + 1:
            largest = largest.topk(wanted + 1, sorted=False).values
    if largest.numel() <= wanted:
        return torch.zeros_like(weights.b_enc)
    # Halfway between the last that fires and the first that does not.
    last = largest.topk(2, largest=False).values.mean()
    return last.expand_as(weights.b_enc).clone() if relative_to is None else last * relative_to


def threshold_per_latent(weights: Weights, x: Tensor, density: Tensor) -> Tensor:
    """`[n_units]`: thresholds above which each latent fires on its share `density` `[n_units]` of the tokens x. Where
    it is positive on fewer, its threshold is 0."""
    tokens = x.shape[0]
    wanted = (density * tokens).round().long().clamp(0, tokens)
    thresholds = []
    for units in _blocks(weights.b_enc.numel(), max(1, BLOCK_ELEMENTS // tokens)):
        pre = preactivations(x, weights.W_enc[:, units], weights.b_enc[units]).T.contiguous()
        descending = pre.sort(dim=1, descending=True).values  # [units, tokens]
        ranks = wanted[units, None]
        last = descending.gather(1, (ranks - 1).clamp_min(0))[:, 0]
        first_silent = descending.gather(1, ranks.clamp_max(tokens - 1))[:, 0]
        found = (last + first_silent) / 2
        # None may fire: anything above the largest. All may fire: nothing to keep out.
        found = torch.where(ranks[:, 0] == 0, last.abs() * 2 + 1, found)
        found = torch.where(ranks[:, 0] == tokens, torch.zeros_like(found), found)
        thresholds.append(found.clamp_min(0))
    return torch.cat(thresholds)


def _blocks(n: int, size: int) -> Iterator[slice]:
    for start in range(0, n, size):
        yield slice(start, min(n, start + size))
