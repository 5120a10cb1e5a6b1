"""Product-key search on GPU: the best of each half by torch, the pairs that can win by one Triton program a row."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.selection.gpu import topk


def best(scores1: Tensor, scores2: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Scores of the halves `[rows, n]` -> the k largest sums and their pairs i · n + j, `[rows, k]`, descending.

    Pairs are packed below the bits of their score: n up to 65,536.
    """
    rows, n = scores1.shape
    half = min(k, n)
    top1, first = topk(scores1, half)
    top2, second = topk(scores2, half)
    # Ranks (a, b) that can win: every pair of ranks at least as good counts (a + 1)(b + 1).
    ranks = [(a, b) for a in range(half) for b in range(min(half, k // (a + 1)))]
    a, b = (torch.tensor(side, device=scores1.device) for side in zip(*ranks, strict=True))
    scores = torch.empty(rows, k, dtype=scores1.dtype, device=scores1.device)
    pairs = torch.empty(rows, k, dtype=torch.long, device=scores1.device)
    if rows:
        _best[(rows,)](
            top1,
            top2,
            first,
            second,
            a,
            b,
            scores,
            pairs,
            half,
            n,
            k,
            len(ranks),
            SIZE=triton.next_power_of_2(len(ranks)),
        )
    return scores, pairs


@triton.jit
def _best(top1, top2, first, second, a, b, scores, pairs, half, n, k, candidates, SIZE: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    c = tl.arange(0, SIZE)
    inside = c < candidates
    left = row * half + tl.load(a + c, mask=inside, other=0)
    right = row * half + tl.load(b + c, mask=inside, other=0)
    total = tl.load(top1 + left).to(tl.float32) + tl.load(top2 + right).to(tl.float32) + 0.0
    pair = tl.load(first + left) * n + tl.load(second + right)
    # Floats as integers in the same order, the lower pair first among equals.
    bits = total.to(tl.int32, bitcast=True)
    key = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    packed = (key.to(tl.int64) << 32) | (0xFFFFFFFF - pair)
    packed = tl.sort(tl.where(inside, packed, -0x7FFFFFFFFFFFFFFF), descending=True)
    key = (packed >> 32).to(tl.int32)
    bits = key ^ ((key >> 31) & 0x7FFFFFFF)
    tl.store(scores + row * k + c, bits.to(tl.float32, bitcast=True).to(scores.dtype.element_ty), mask=c < k)
    tl.store(pairs + row * k + c, 0xFFFFFFFF - (packed & 0xFFFFFFFF), mask=c < k)
