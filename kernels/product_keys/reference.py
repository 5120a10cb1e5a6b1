"""Ground truth of product-key search in plain torch: all n² sums, stable sort, first k."""

from __future__ import annotations

import torch
from torch import Tensor


def search(q1: Tensor, q2: Tensor, keys1: Tensor, keys2: Tensor, k: int) -> tuple[Tensor, Tensor]:
    tokens, heads, _ = q1.shape
    n = keys1.shape[1]
    keys1, keys2 = (keys.expand(heads, -1, -1) for keys in (keys1, keys2))
    scores1 = torch.einsum("thd,hnd->thn", q1, keys1)
    scores2 = torch.einsum("thd,hnd->thn", q2, keys2)
    sums = (scores1[..., :, None] + scores2[..., None, :]).reshape(tokens, heads, n * n)
    # A stable descending sort leaves the lower index first among equals.
    scores, indices = sums.sort(dim=-1, descending=True, stable=True)
    return scores[..., :k], indices[..., :k]


def best(scores1: Tensor, scores2: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest sums of two halves `[rows, n]` from the best of each half: what the fast ones do, plainly."""
    rows, n = scores1.shape
    half = min(k, n)
    top1, i = scores1.sort(dim=1, descending=True, stable=True)
    top2, j = scores2.sort(dim=1, descending=True, stable=True)
    sums = (top1[:, :half, None] + top2[:, None, :half]).reshape(rows, -1)
    pairs = (i[:, :half, None] * n + j[:, None, :half]).reshape(rows, -1)
    # By index first, so that the stable sort by score leaves the lower index first among equals.
    pairs, order = pairs.sort(dim=1)
    scores, order = sums.gather(1, order).sort(dim=1, descending=True, stable=True)
    return scores[:, :k], pairs.gather(1, order)[:, :k]
