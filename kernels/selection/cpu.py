"""Selection on CPU (numba, float32): find a threshold, look closer only at what reaches it.

Floats are compared as integers in the same order (`key_of`): no case of its own for NaN or −0, and (key, index) packs
into one integer whose order settles ties.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kernels.threads import array, jit, parallel

LAST = np.int64(0x7FFFFFFF)
LOW, HIGH = np.int32(-(2**31)), np.int32(2**31 - 1)
HEIGHT = 16  # rows in a block
INSERT_BELOW = 64  # so many are kept in order while reading; more are selected first
NOTHING = np.int64(-(2**63))


def topk(a: Tensor, k: int) -> tuple[Tensor, Tensor]:
    values, indices = torch.empty(len(a), k, dtype=a.dtype), torch.empty(len(a), k, dtype=torch.long)
    if k:
        bits, out = array(a).view(np.int32), array(values).view(np.int32)
        parallel(_topk_rows, len(a), bits, k, out, array(indices))
    return values, indices


def batch_topk(a: Tensor, m: int) -> tuple[Tensor, Tensor, Tensor]:
    bits = array(a).view(np.int32)
    maxima = _maxima(bits)
    # Guess a threshold from a sample, generously; where it lets too few through, ask for more.
    sample = _keys(bits.reshape(-1)[:: max(1, a.numel() // 100_000)])
    reach = 1.1
    while True:
        wanted = min(len(sample), int(len(sample) * m / max(a.numel(), 1) * reach) + 64)
        guess = np.partition(sample, len(sample) - wanted)[len(sample) - wanted] if wanted < len(sample) else LOW
        bounds = np.full(bits.shape[1], guess if guess > 0 else LOW)
        offsets, keys, columns = _candidates(bits, maxima, bounds)
        if len(keys) >= m:
            break
        reach *= 4
    taken = np.zeros(len(keys), np.bool_)
    if m:
        threshold = np.partition(keys, len(keys) - m)[len(keys) - m]
        taken = keys > threshold
        # Of those equal to the threshold the first in flat order, as many as are still wanted.
        taken[np.flatnonzero(keys == threshold)[: m - int(taken.sum())]] = True
    return _compress(offsets, keys, columns, taken)


def column_topk(a: Tensor, m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    bits = array(a).view(np.int32)
    per_column = array(m)
    maxima = _maxima(bits)
    bounds = np.empty(bits.shape[1], np.int32)
    parallel(_column_bounds, bits.shape[1], maxima.T.copy(), per_column, bounds)
    offsets, keys, columns = _candidates(bits, maxima, bounds)
    taken = np.zeros(len(keys), np.bool_)
    ends = np.concatenate([np.zeros(1, np.int64), np.bincount(columns, minlength=bits.shape[1]).cumsum()])
    packs = np.empty(len(keys), np.int64)
    _by_column(keys, columns, ends.copy(), packs)
    parallel(_take_columns, bits.shape[1], packs, ends, per_column, taken)
    return _compress(offsets, keys, columns, taken)


def _maxima(bits: np.ndarray) -> np.ndarray:
    """`[blocks, columns]`: the largest of every HEIGHT rows, column by column, compared as plain integers."""
    blocks = -(-len(bits) // HEIGHT)
    maxima = np.empty((blocks, bits.shape[1]), np.int32)
    parallel(_column_maxima, blocks, bits, maxima, grain=1)
    return maxima


def _candidates(bits: np.ndarray, maxima: np.ndarray, bounds: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Entries that reach the bound of their column, in flat order: offsets of the rows, keys, columns.

    bounds are positive floats' bits, or LOW, which everything reaches.
    """
    counts = np.zeros(len(bits) + 1, np.int64)
    parallel(_count, len(maxima), bits, maxima, bounds, counts[1:], grain=1)
    offsets = counts.cumsum()
    keys, columns = np.empty(offsets[-1], np.int32), np.empty(offsets[-1], np.int64)
    parallel(_collect, len(maxima), bits, maxima, bounds, offsets, keys, columns, grain=1)
    return offsets, keys, columns


def _compress(
    offsets: np.ndarray, keys: np.ndarray, columns: np.ndarray, taken: np.ndarray
) -> tuple[Tensor, Tensor, Tensor]:
    before = np.concatenate([np.zeros(1, np.int64), taken.cumsum()])
    values = _keys(keys[taken]).view(np.float32)  # the key of a key is the bits again
    return torch.from_numpy(before[offsets]), torch.from_numpy(columns[taken]), torch.from_numpy(values)


def _keys(bits: np.ndarray) -> np.ndarray:
    zeroed = np.where(bits == LOW, np.int32(0), bits)
    return zeroed ^ ((zeroed >> 31) & np.int32(0x7FFFFFFF))


@jit
def key_of(bits):
    """An int32 that orders like the float32 with these bits (its own inverse). −0 counts as 0."""
    if bits == LOW:
        return np.int32(0)
    return bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF))


@jit
def unpack(pack):
    return np.int32(pack >> 32), LAST - (pack & LAST)


@jit
def select(items, n, k):
    """Move the k largest of the first n items to the front (quickselect; items must differ)."""
    low, high = 0, n - 1
    while low < high:
        a, b, c = items[low], items[(low + high) // 2], items[high]
        pivot = max(min(a, b), min(max(a, b), c))
        i, j = low, high
        while i <= j:
            while items[i] > pivot:
                i += 1
            while items[j] < pivot:
                j -= 1
            if i <= j:
                items[i], items[j] = items[j], items[i]
                i += 1
                j -= 1
        if k - 1 <= j:
            high = j
        elif k - 1 >= i:
            low = i
        else:
            return


@jit
def insert(best, pack):
    """Put `pack` in its place among `best`, which descends; the last one drops out."""
    j = best.shape[0] - 1
    if pack > best[j]:
        while j > 0 and best[j - 1] < pack:
            best[j] = best[j - 1]
            j -= 1
        best[j] = pack


@jit
def rank(bits, best, maxima, packs):
    """best = the largest of `bits` as packs (key, lower index first), descending; as many as `best` has room for.

    maxima, packs: room for as many as there are `bits`.
    """
    n, k = bits.shape[0], best.shape[0]
    if k > INSERT_BELOW:
        for i in range(n):
            packs[i] = (np.int64(key_of(bits[i])) << 32) | (LAST - i)
        select(packs, n, k)
        front = packs[:k]
        front.sort()
        best[:] = front[::-1]
        return
    best[:] = NOTHING
    blocks = 8 * k
    if 4 * blocks > n:
        for i in range(n):
            insert(best, (np.int64(key_of(bits[i])) << 32) | (LAST - i))
        return
    # One entry of each block (every blocks-th entry): the k-th largest of those is a bound that at least k entries
    # reach, and few more. It is the largest of the block, unless all are negative.
    for block in range(blocks):
        maxima[block] = bits[block]
    for begin in range(blocks, n - blocks + 1, blocks):
        for block in range(blocks):
            maxima[block] = max(maxima[block], bits[begin + block])
    for i in range(n - n % blocks, n):
        maxima[i % blocks] = max(maxima[i % blocks], bits[i])
    for block in range(blocks):
        insert(best, (np.int64(key_of(maxima[block])) << 32) | block)
    bound = best[k - 1] >> 32
    best[:] = NOTHING
    for block in range(blocks):
        if key_of(maxima[block]) >= bound or (maxima[block] < 0 and bound < 0):
            for i in range(block, n, blocks):
                key = np.int64(key_of(bits[i]))
                if key >= bound:
                    insert(best, (key << 32) | (LAST - i))


@jit
def _topk_rows(bits, k, values, indices, start, stop):
    n = bits.shape[1]
    maxima, packs, best = np.empty(n, np.int32), np.empty(n, np.int64), np.empty(k, np.int64)
    for row in range(start, stop):
        rank(bits[row], best, maxima, packs)
        for i in range(k):
            key, index = unpack(best[i])
            values[row, i] = key_of(key)
            indices[row, i] = index


@jit
def _column_maxima(bits, maxima, start, stop):
    rows, columns = bits.shape
    for block in range(start, stop):
        for i in range(columns):
            maxima[block, i] = bits[block * HEIGHT, i]
        for row in range(block * HEIGHT + 1, min((block + 1) * HEIGHT, rows)):
            for i in range(columns):
                maxima[block, i] = max(maxima[block, i], bits[row, i])


@jit
def _column_bounds(maxima, per_column, bounds, start, stop):
    blocks = maxima.shape[1]
    packs = np.empty(blocks, np.int64)
    for column in range(start, stop):
        k = per_column[column]
        if k == 0:
            bounds[column] = HIGH
        elif 2 * k > blocks:
            bounds[column] = LOW
        else:
            for block in range(blocks):
                packs[block] = (np.int64(key_of(maxima[column, block])) << 32) | block
            select(packs, blocks, k)
            bound = packs[0] >> 32
            for i in range(1, k):
                bound = min(bound, packs[i] >> 32)
            # A bound of 0 or below is compared as bits: only positive floats order like those. Let everything in.
            bounds[column] = bound if bound > 0 else LOW


@jit
def _count(bits, maxima, bounds, counts, start, stop):
    rows, columns = bits.shape
    for block in range(start, stop):
        for i in range(columns):
            if maxima[block, i] >= bounds[i]:
                for row in range(block * HEIGHT, min((block + 1) * HEIGHT, rows)):
                    counts[row] += bits[row, i] >= bounds[i]


@jit
def _collect(bits, maxima, bounds, offsets, keys, at, start, stop):
    rows, columns = bits.shape
    cursor = np.empty(HEIGHT, np.int64)
    for block in range(start, stop):
        first = block * HEIGHT
        for row in range(first, min(first + HEIGHT, rows)):
            cursor[row - first] = offsets[row]
        for i in range(columns):
            if maxima[block, i] >= bounds[i]:
                for row in range(first, min(first + HEIGHT, rows)):
                    if bits[row, i] >= bounds[i]:
                        place = cursor[row - first]
                        keys[place], at[place] = key_of(bits[row, i]), i
                        cursor[row - first] = place + 1


@jit
def _by_column(keys, at, cursor, packs):
    for entry in range(keys.shape[0]):
        # Entries come row by row, so the lower entry number is the lower row.
        packs[cursor[at[entry]]] = (np.int64(keys[entry]) << 32) | (LAST - entry)
        cursor[at[entry]] += 1


@jit
def _take_columns(packs, ends, per_column, taken, start, stop):
    for column in range(start, stop):
        here = packs[ends[column] : ends[column + 1]]
        select(here, here.shape[0], per_column[column])
        for i in range(per_column[column]):
            taken[unpack(here[i])[1]] = True
