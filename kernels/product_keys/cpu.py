"""Product-key search on CPU (numba, float32): best k of each half, then the pairs that can win."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kernels.product_keys import reference
from kernels.selection.cpu import LAST, key_of, select, top, unpack
from kernels.threads import array, jit, parallel


def best(scores1: Tensor, scores2: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Scores of the halves `[rows, n]` -> the k largest sums and their pairs i · n + j, `[rows, k]`, descending."""
    rows, n = scores1.shape
    if n * n > LAST + 1:  # pairs are packed into 31 bits
        return reference.best(scores1, scores2, k)
    scores, pairs = torch.empty(rows, k), torch.empty(rows, k, dtype=torch.long)
    halves = (array(scores1), array(scores2))
    parallel(
        _best, rows, *halves, *(half.view(np.int32) for half in halves), k, array(scores).view(np.int32), array(pairs)
    )
    return scores, pairs


@jit
def _ranked(bits, k, maxima, packs, out):
    """out = indices of the k largest of `bits`, best first."""
    top(bits, k, maxima, packs)
    front = packs[:k]
    front.sort()
    for i in range(k):
        out[i] = unpack(front[k - 1 - i])[1]


@jit
def _best(scores1, scores2, bits1, bits2, k, values, pairs, start, stop):
    n = scores1.shape[1]
    half = min(k, n)
    maxima, packs = np.empty(n, np.int32), np.empty(max(n, k * half) + 1, np.int64)
    first, second = np.empty(half, np.int64), np.empty(half, np.int64)
    total = np.empty(k * half, np.float32)
    bits = total.view(np.int32)
    for row in range(start, stop):
        _ranked(bits1[row], half, maxima, packs, first)
        _ranked(bits2[row], half, maxima, packs, second)
        found = 0
        for a in range(half):
            # Every pair of ranks (a', b') <= (a, b) is at least as good: (a + 1)(b + 1) of them.
            for b in range(min(half, k // (a + 1))):
                total[found] = scores1[row, first[a]] + scores2[row, second[b]]
                pair = first[a] * n + second[b]
                packs[found] = (np.int64(key_of(bits[found])) << 32) | (LAST - pair)
                found += 1
        select(packs, found, k)
        front = packs[:k]
        front.sort()
        for i in range(k):
            key, pair = unpack(front[k - 1 - i])
            values[row, i] = key_of(key)
            pairs[row, i] = pair
