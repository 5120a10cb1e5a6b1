"""Product-key search on CPU (numba, float32): best k of each half, then the pairs that can win."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kernels.memory import array
from kernels.product_keys import reference
from kernels.selection.cpu import LAST, bits_of, key_of, rank, take, unpack
from kernels.threads import jit, parallel


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
def _best(scores1, scores2, bits1, bits2, k, values, pairs, start, stop):
    n = scores1.shape[1]
    half = min(k, n)
    keys, maxima, best = np.empty(n, np.int32), np.empty(n, np.int32), np.empty(k, np.int64)
    packs = np.empty(max(n, k * half), np.int64)
    first, second = np.empty(half, np.int64), np.empty(half, np.int64)
    total = np.empty(1, np.float32)
    bits = total.view(np.int32)
    for row in range(start, stop):
        rank(bits1[row], first, keys, maxima, packs)
        rank(bits2[row], second, keys, maxima, packs)
        m = 0
        for a in range(half):
            i = unpack(first[a])[1]
            # Every pair of ranks (a', b') <= (a, b) is at least as good: (a + 1)(b + 1) of them.
            for b in range(min(half, k // (a + 1))):
                j = unpack(second[b])[1]
                total[0] = scores1[row, i] + scores2[row, j]
                packs[m] = (np.int64(key_of(bits[0])) << 32) | (LAST - (i * n + j))
                m += 1
        take(packs, m, best)
        for c in range(k):
            key, pair = unpack(best[c])
            values[row, c] = bits_of(key)
            pairs[row, c] = pair
