"""Weight gradients as stable counting sort + segmented sums (numba): Σ of weight · source row, per table row.

A *pair* is one (token, table row) that met. Pairs are grouped by table row, in the order of their tokens, and each row
is summed by one thread; rows with very many pairs are split in pieces of fixed length whose partial sums are added
in a fixed tree. So there are no float atomics, results repeat to the bit, and one hot row does not hold up the rest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kernels.threads import ZERO, jit, leaf, parallel

PIECE = 512  # pairs summed in one go; fixed, because the order of a sum decides its last bits


@dataclass(frozen=True)
class RowGroups:
    """Pairs grouped by table row, those of silent weight left out.

    tokens, first, second `[pairs]`: token and weights of each pair; touched `[rows touched]`: ascending table rows.
    pieces `[n, 4]`: place of the row among the touched, first and last+1 pair, place of the partial sum (-1: none).
    hot `[rows split, 3]`: place of the row among the touched, first and last+1 partial sum.
    """

    tokens: np.ndarray
    first: np.ndarray
    second: np.ndarray
    touched: np.ndarray
    pieces: np.ndarray
    hot: np.ndarray
    n_partials: int
    n_rows: int


def group(ids: np.ndarray, slots: int, first: np.ndarray, second: np.ndarray, n_rows: int) -> RowGroups:
    """Group the pairs whose weight is not zero in `first` or in `second`.

    ids, first, second `[tokens, slots]`: table row and weights of each pair.
    """
    indptr = np.arange(len(ids) + 1, dtype=np.int64) * slots
    return group_ragged(ids.reshape(-1), indptr, first.reshape(-1), second.reshape(-1), n_rows)


def group_ragged(ids: np.ndarray, indptr: np.ndarray, first: np.ndarray, second: np.ndarray, n_rows: int) -> RowGroups:
    """The same when tokens differ in how many pairs they have: ids and weights `[pairs]`, indptr `[tokens + 1]`."""
    tokens, first, second, touched, pieces, hot, n_partials = _group(ids, indptr, first, second, n_rows, PIECE)
    return RowGroups(tokens, first, second, touched, pieces, hot, n_partials, n_rows)


def sum_rows(
    groups: RowGroups, weights: np.ndarray, source: np.ndarray, out: np.ndarray, compact: bool = False
) -> None:
    """out[row] = Σ over the pairs of the row of weight · source[token]; rows without pairs become 0.

    weights: `groups.first` or `groups.second`; source `[tokens, d]`; out `[n_rows, d]`, or `[touched, d]` if compact.
    """
    partials = np.empty((groups.n_partials, source.shape[1]), source.dtype)
    parallel(
        _sum_pieces, len(groups.pieces), groups.tokens, weights, groups.touched, groups.pieces, compact,
        source, out, partials, grain=64,
    )  # fmt: skip
    _sum_partials(groups.hot, groups.touched, partials, out, compact)
    if not compact:
        out[int(groups.touched[-1]) + 1 if len(groups.touched) else 0 :] = 0


@jit
def _group(ids, indptr, first, second, n_rows, piece):
    counts = np.zeros(n_rows + 1, np.int64)
    for pair in range(ids.shape[0]):
        # No branch: half the pairs of a relu layer are silent, at random, and a mispredicted branch costs more.
        counts[ids[pair] + 1] += (first[pair] != 0) | (second[pair] != 0)
    n_touched = 0
    n_pieces = 0
    n_hot = 0
    n_partials = 0
    for row in range(n_rows):
        count = counts[row + 1]
        if count:
            here = (count + piece - 1) // piece
            n_touched += 1
            n_pieces += here
            if here > 1:
                n_hot += 1
                n_partials += here
    touched = np.empty(n_touched, np.int64)
    pieces = np.empty((n_pieces, 4), np.int64)
    hot = np.empty((n_hot, 3), np.int64)
    n_touched = 0
    n_pieces = 0
    n_hot = 0
    n_partials = 0
    for row in range(n_rows):
        count = counts[row + 1]
        begin = counts[row]
        counts[row + 1] = begin + count
        if count:
            here = (count + piece - 1) // piece
            if here > 1:
                hot[n_hot] = (n_touched, n_partials, n_partials + here)
                n_hot += 1
            for i in range(here):
                stop = min(begin + (i + 1) * piece, begin + count)
                pieces[n_pieces] = (n_touched, begin + i * piece, stop, n_partials if here > 1 else -1)
                n_pieces += 1
                if here > 1:
                    n_partials += 1
            touched[n_touched] = row
            n_touched += 1
    # counts[row] is now where the next pair of the row goes.
    kept = counts[n_rows]
    tokens = np.empty(kept + 1, np.int64)
    first_grouped = np.empty(kept + 1, first.dtype)
    second_grouped = np.empty(kept + 1, second.dtype)
    for token in range(indptr.shape[0] - 1):
        for pair in range(indptr[token], indptr[token + 1]):
            keep = (first[pair] != 0) | (second[pair] != 0)
            place = counts[ids[pair]]
            counts[ids[pair]] = place + keep
            place = place if keep else kept  # the silent ones all land in the slack at the end
            tokens[place] = token
            first_grouped[place] = first[pair]
            second_grouped[place] = second[pair]
    return tokens[:kept], first_grouped[:kept], second_grouped[:kept], touched, pieces, hot, n_partials


@leaf
def _clear_gap(touched, pieces, number, out):
    """Zero the rows that no pair touches, between the row of this piece and the row before it."""
    place = pieces[number, 0]
    if number == 0 or pieces[number - 1, 0] != place:
        for row in range(0 if place == 0 else touched[place - 1] + 1, touched[place]):
            for j in range(out.shape[1]):
                out[row, j] = 0


@leaf
def _sum_pieces(tokens, weights, touched, pieces, compact, source, out, partials, start, stop):
    for number in range(start, stop):
        place, begin, end, partial = pieces[number, 0], pieces[number, 1], pieces[number, 2], pieces[number, 3]
        if not compact:
            _clear_gap(touched, pieces, number, out)
        if partial < 0:
            _sum_pairs(tokens, weights, begin, end, source, out, place if compact else touched[place])
        else:
            _sum_pairs(tokens, weights, begin, end, source, partials, partial)


@leaf
def _sum_pairs(tokens, weights, begin, end, source, target, row):
    """target[row] = Σ weights · source[tokens], over pairs [begin, end)."""
    # Four source rows at a time: fewer passes over the target, and four reads in flight. What is missing to four is
    # the last row again with weight zero.
    i = begin
    while i < end:
        p1, p2, p3 = min(i + 1, end - 1), min(i + 2, end - 1), min(i + 3, end - 1)
        t0, t1, t2, t3 = tokens[i], tokens[p1], tokens[p2], tokens[p3]
        w0 = weights[i]
        w1 = weights[p1] if p1 == i + 1 else ZERO
        w2 = weights[p2] if p2 == i + 2 else ZERO
        w3 = weights[p3] if p3 == i + 3 else ZERO
        if i == begin:
            for j in range(source.shape[1]):
                target[row, j] = w0 * source[t0, j] + w1 * source[t1, j] + w2 * source[t2, j] + w3 * source[t3, j]
        else:
            for j in range(source.shape[1]):
                target[row, j] += w0 * source[t0, j] + w1 * source[t1, j] + w2 * source[t2, j] + w3 * source[t3, j]
        i += 4


@jit
def _sum_partials(hot, touched, partials, out, compact):
    d = out.shape[1]
    for number in range(hot.shape[0]):
        place, begin, end = hot[number]
        stride = 1
        while stride < end - begin:
            for left in range(begin, end - stride, 2 * stride):
                for j in range(d):
                    partials[left, j] += partials[left + stride, j]
            stride *= 2
        row = place if compact else touched[place]
        for j in range(d):
            out[row, j] = partials[begin, j]
