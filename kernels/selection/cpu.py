"""Selection on CPU (numba, float32): find a threshold, look closer only at what reaches it.

Floats are compared as integers in the same order (`key_of`): NaN of either sign is the largest (x86 makes 0/0 with the
sign bit set), −0 is 0. (key, index) packs into one integer whose order settles ties.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kernels.memory import array
from kernels.threads import jit, parallel

LAST = np.int64(0x7FFFFFFF)
LOW, HIGH = np.int32(-(2**31)), np.int32(2**31 - 1)
MINUS_INFINITY = np.int32(-(2**23))  # the bits of it; of the negative integers NaN has those above
HEIGHT = 16  # rows in a block
COUNT_BELOW = 256  # so many are put in order by counting; more are selected or sorted


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
    sample = _keys(bits.reshape(-1)[:: max(1, a.numel() // 100_000)].copy())
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
    parallel(_column_bounds, bits.shape[1], bits, maxima.T.copy(), per_column, bounds)
    offsets, keys, columns = _candidates(bits, maxima, bounds)
    taken = np.zeros(len(keys), np.bool_)
    ends = np.concatenate([np.zeros(1, np.int64), np.bincount(columns, minlength=bits.shape[1]).cumsum()])
    packs = np.empty(len(keys), np.int64)
    _by_column(keys, columns, ends.copy(), packs)
    parallel(_take_columns, bits.shape[1], packs, ends, per_column, taken)
    return _compress(offsets, keys, columns, taken)


def positive(a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    values = array(a)
    offsets = np.zeros(len(values) + 1, np.int64)
    parallel(_count_positive, len(values), values, offsets[1:])
    np.cumsum(offsets, out=offsets)
    columns, kept = np.empty(offsets[-1], np.int64), np.empty(offsets[-1], np.float32)
    parallel(_collect_positive, len(values), values, offsets, columns, kept)
    return torch.from_numpy(offsets), torch.from_numpy(columns), torch.from_numpy(kept)


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
    values = bits_of(keys[taken]).view(np.float32)
    return torch.from_numpy(before[offsets]), torch.from_numpy(columns[taken]), torch.from_numpy(values)


@jit
def unsigned_nan(bits):
    return bits & HIGH if MINUS_INFINITY < bits < 0 else bits


@jit
def key_of(bits):
    """An int32 that orders like the float32 with these bits. −0 counts as 0, NaN as larger than infinity."""
    bits = np.int32(0) if bits == LOW else unsigned_nan(bits)
    return bits ^ ((bits >> np.int32(31)) & HIGH)


@jit
def bits_of(key):
    """The bits of the float32 that has this key (of an array of keys too)."""
    return key ^ ((key >> np.int32(31)) & HIGH)


@jit
def _keys(bits):
    keys = np.empty_like(bits)
    for i in range(bits.shape[0]):
        keys[i] = key_of(bits[i])
    return keys


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
def take(packs, m, best):
    """best = the largest of the first m packs, descending; as many as `best` has room for. Reorders them."""
    k = best.shape[0]
    if m > COUNT_BELOW:
        select(packs, m, k)
        m = k
    some = packs[:m]
    if m > COUNT_BELOW:
        some.sort()
        best[:] = some[::-1]
        return
    # How many are ahead of one is its place: m² comparisons without a branch beat a sort that guesses wrong.
    for i in range(m):
        place = 0
        for j in range(m):
            place += some[j] > some[i]
        if place < k:
            best[place] = some[i]


@jit
def bound_of(keys, k):
    """A key that at least k of `keys` reach, and few more unless many are equal: bisection, counting at each guess."""
    low = high = np.int64(keys[0])
    for i in range(keys.shape[0]):
        low, high = min(low, np.int64(keys[i])), max(high, np.int64(keys[i]))
    high += 1
    while high - low > 1:
        middle = (low + high) >> 1
        guess, count = np.int32(middle), np.int32(0)
        for i in range(keys.shape[0]):
            count = np.int32(count + np.int32(keys[i] >= guess))
        if count < k:
            high = middle
        else:
            low = middle
            if count <= k + k // 4:
                break
    return np.int32(low)


@jit
def rank(bits, best, keys, maxima, packs):
    """best = the largest of `bits` as packs (key, lower index first), descending; as many as `best` has room for.

    keys, maxima, packs: room for as many as there are `bits`. Loops over slices, whose bounds the compiler knows, run
    eight entries at a time.
    """
    n, k, m = bits.shape[0], best.shape[0], 0
    for i in range(n):
        keys[i] = key_of(bits[i])
    blocks = 8 * k
    if 4 * blocks > n:
        bound = bound_of(keys, k)
        for i in range(n):
            if keys[i] >= bound:
                packs[m] = (np.int64(keys[i]) << 32) | (LAST - i)
                m += 1
    else:
        # The largest of each block (every blocks-th entry): what k of those reach, k entries reach. Only blocks whose
        # largest reaches it are read again.
        largest = maxima[:blocks]
        largest[:] = keys[:blocks]
        for begin in range(blocks, n, blocks):
            part = keys[begin : min(begin + blocks, n)]
            for block in range(part.shape[0]):
                largest[block] = max(largest[block], part[block])
        bound = bound_of(largest, k)
        for block in range(blocks):
            if largest[block] >= bound:
                for i in range(block, n, blocks):
                    if keys[i] >= bound:
                        packs[m] = (np.int64(keys[i]) << 32) | (LAST - i)
                        m += 1
    take(packs, m, best)


@jit
def _topk_rows(bits, k, values, indices, start, stop):
    n = bits.shape[1]
    keys, maxima, packs = np.empty(n, np.int32), np.empty(n, np.int32), np.empty(n, np.int64)
    best = np.empty(k, np.int64)
    for row in range(start, stop):
        rank(bits[row], best, keys, maxima, packs)
        for i in range(k):
            key, index = unpack(best[i])
            values[row, i] = bits_of(key)
            indices[row, i] = index


@jit
def _column_maxima(bits, maxima, start, stop):
    rows, columns = bits.shape
    for block in range(start, stop):
        for i in range(columns):
            maxima[block, i] = unsigned_nan(bits[block * HEIGHT, i])
        for row in range(block * HEIGHT + 1, min((block + 1) * HEIGHT, rows)):
            for i in range(columns):
                maxima[block, i] = max(maxima[block, i], unsigned_nan(bits[row, i]))


@jit
def _column_bounds(bits, maxima, per_column, bounds, start, stop):
    blocks = maxima.shape[1]
    packs, keys = np.empty(blocks, np.int64), np.empty(len(bits), np.int32)
    for column in range(start, stop):
        k = per_column[column]
        if k == 0:
            bounds[column] = HIGH
        elif 2 * k > blocks:
            # Too few blocks to tell: the column itself is read.
            for row in range(len(bits)):
                keys[row] = key_of(bits[row, column])
            bound = bound_of(keys, k)
            bounds[column] = bound if bound > 0 else LOW
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
                    counts[row] += unsigned_nan(bits[row, i]) >= bounds[i]


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
                    if unsigned_nan(bits[row, i]) >= bounds[i]:
                        place = cursor[row - first]
                        keys[place], at[place] = key_of(bits[row, i]), i
                        cursor[row - first] = place + 1


@jit
def _count_positive(a, counts, start, stop):
    for row in range(start, stop):
        count = np.int32(0)
        for i in range(a.shape[1]):
            count = np.int32(count + np.int32(not a[row, i] <= 0))
        counts[row] = count


@jit
def _collect_positive(a, offsets, columns, values, start, stop):
    for row in range(start, stop):
        place = offsets[row]
        for i in range(a.shape[1]):
            if not a[row, i] <= 0:
                columns[place], values[place] = i, a[row, i]
                place += 1


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
