"""Rows of a table picked by number: dot products with them and weighted sums of them (numba, float32).

These are what every sparse op is made of. Rows come in fours and the next four are fetched ahead: tables leave the
cache, and one core reaches memory bandwidth only with several reads in flight.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kernels import segments
from kernels.memory import array, empty_gradient
from kernels.threads import CACHE_LINE, ZERO, check_range, jit, leaf, parallel, prefetch

# numba keeps compiled code by the date of the file it stands in: after changing a function here that other files
# inline (or `prefetch` in threads.py), delete the `__pycache__` folders of kernels/.


def weighted_rows(indptr: Tensor, ids: Tensor, weights: Tensor, table: Tensor) -> Tensor:
    """out[t] = Σ over the entries of t of weights · table[ids]: `[tokens, d]`.

    indptr `[tokens + 1]`; ids, weights `[entries]`; table `[n, d]`. Entries of weight zero cost nothing.
    """
    check_range(ids, len(table))
    out = torch.empty(len(indptr) - 1, table.shape[1], dtype=table.dtype)
    parallel(_weighted_rows, len(out), array(indptr), array(ids), array(weights), array(table), array(out))
    return out


def row_dots(indptr: Tensor, ids: Tensor, x: Tensor, table: Tensor) -> Tensor:
    """out[entry] = table[ids] · x[token of the entry]: `[entries]`. x `[tokens, d]`."""
    out = torch.empty(ids.shape, dtype=x.dtype)
    parallel(_row_dots, len(x), array(indptr), array(ids), array(x), array(table), array(out))
    return out


def table_gradient(indptr: Tensor, ids: Tensor, weights: Tensor, source: Tensor, n_rows: int) -> Tensor:
    """out[row] = Σ over the entries that name the row of weights · source[token]: `[n_rows, d]`."""
    groups = segments.group_ragged(array(ids), array(indptr), array(weights), array(weights), n_rows)
    out = empty_gradient(n_rows, source.shape[1])
    segments.sum_rows(groups, groups.first, array(source), array(out))
    return out


@jit
def _weighted_rows(indptr, ids, weights, table, out, start, stop):
    longest = 0
    for t in range(start, stop):
        longest = max(longest, indptr[t + 1] - indptr[t])
    rows, kept = np.empty(longest + 1, np.int64), np.empty(longest + 1, np.float32)
    for t in range(start, stop):
        n = 0
        for entry in range(indptr[t], indptr[t + 1]):
            rows[n], kept[n] = ids[entry], weights[entry]
            n += kept[n] != 0
        fetch_rows(table, rows, 0, min(4, n))
        add_rows(table, rows, kept, n, out[t])


@leaf
def _row_dots(indptr, ids, x, table, out, start, stop):
    for t in range(start, stop):
        dots(table, x[t], ids, indptr[t], indptr[t + 1], indptr[stop], out)


@leaf
def fetch_rows(table, rows, begin, end):
    d = table.shape[1]
    for i in range(begin, end):
        for j in range(0, d, CACHE_LINE):
            prefetch(table, rows[i] * d + j)  # pyright: ignore[reportCallIssue] (an intrinsic)


@leaf
def dots(table, row, rows, begin, end, known, out):
    """out[i] = table[rows[i]] · row for i in [begin, end). Rows up to number `known` may be fetched ahead."""
    d = table.shape[1]
    i = begin
    while i + 4 <= end:
        e0, e1, e2, e3 = rows[i], rows[i + 1], rows[i + 2], rows[i + 3]
        fetch_rows(table, rows, i + 4, min(i + 8, known))
        a0, a1, a2, a3 = ZERO, ZERO, ZERO, ZERO
        for j in range(d):
            a0 += table[e0, j] * row[j]
            a1 += table[e1, j] * row[j]
            a2 += table[e2, j] * row[j]
            a3 += table[e3, j] * row[j]
        out[i], out[i + 1], out[i + 2], out[i + 3] = a0, a1, a2, a3
        i += 4
    while i < end:
        e, a = rows[i], ZERO
        for j in range(d):
            a += table[e, j] * row[j]
        out[i] = a
        i += 1


@leaf
def add_rows(table, rows, weights, n, out):
    """out = Σ weights[i] · table[rows[i]]"""
    d = table.shape[1]
    for j in range(d):
        out[j] = 0
    i = 0
    while i + 4 <= n:
        e0, e1, e2, e3 = rows[i], rows[i + 1], rows[i + 2], rows[i + 3]
        w0, w1, w2, w3 = weights[i], weights[i + 1], weights[i + 2], weights[i + 3]
        fetch_rows(table, rows, i + 4, min(i + 8, n))
        for j in range(d):
            out[j] += w0 * table[e0, j] + w1 * table[e1, j] + w2 * table[e2, j] + w3 * table[e3, j]
        i += 4
    while i < n:
        e, w = rows[i], weights[i]
        for j in range(d):
            out[j] += w * table[e, j]
        i += 1
