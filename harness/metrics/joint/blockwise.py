"""The loops behind counts and null: numba, over ranges of units or pairs, so that threads can share them."""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(nogil=True, cache=True)
def count(indptr, units, by_unit, by_token, least, start, stop):
    """Pairs a < b for a in [start, stop) that fire together on `least` tokens or more: a, b, n; number of distinct
    pairs and sum of their counts, the rare ones too. by_unit `[units + 1]` into by_token: the tokens of each unit.

    One counter of all units is filled and cleared for every a, so what is held is one row and what is kept.
    """
    n_units = len(by_unit) - 1
    counter = np.zeros(n_units, np.int32)
    touched = np.empty(n_units, np.int32)
    room = 1024
    first, second, together = np.empty(room, np.int32), np.empty(room, np.int32), np.empty(room, np.int32)
    kept, distinct, total = 0, 0, 0
    for a in range(start, stop):
        seen = 0
        for entry in range(by_unit[a], by_unit[a + 1]):
            token = by_token[entry]
            for m in range(indptr[token + 1] - 1, indptr[token] - 1, -1):
                b = units[m]
                if b <= a:  # ascending within a token: all further ones are smaller
                    break
                if counter[b] == 0:
                    touched[seen] = b
                    seen += 1
                counter[b] += 1
        distinct += seen
        enough = 0
        for m in range(seen):
            b = touched[m]
            total += counter[b]
            if counter[b] >= least:
                touched[enough] = b
                enough += 1
            else:
                counter[b] = 0
        if kept + enough > room:
            room = max(2 * room, kept + enough)
            first, second, together = _grown(first, room), _grown(second, room), _grown(together, room)
        row = np.sort(touched[:enough])
        for b in row:
            first[kept], second[kept], together[kept] = a, b, counter[b]
            kept += 1
            counter[b] = 0
    return first[:kept].copy(), second[:kept].copy(), together[:kept].copy(), distinct, total


@numba.njit(nogil=True, cache=True)
def _grown(array, room):
    larger = np.empty(room, array.dtype)
    larger[: len(array)] = array
    return larger


@numba.njit(nogil=True, cache=True, error_model="numpy")
def expected(p, tokens, spread, scale, own, i, j, mean, variance, start, stop):
    """Mean and variance of the meetings of pairs [start, stop), as null.Null.expected states them.

    p `[units, groups]`; tokens, spread (Σ p(1 − p)) and scale `[groups]`; own `[units]`: Σ_g tokens p(1 − p).
    """
    for pair in range(start, stop):
        a, b = i[pair], j[pair]
        e = plain = with_a = with_b = common = 0.0
        for g in range(len(tokens)):
            pa, pb, n = p[a, g], p[b, g], tokens[g]
            both = pa * pb
            if spread[g] > 0:  # else nothing is left to chance on these tokens
                both = max(0.0, scale[g] * both * (1 - (1 - pa) * (1 - pb) / spread[g]))
            e += n * both
            plain += n * both * (1 - both)
            with_a += n * both * (1 - pa)
            with_b += n * both * (1 - pb)
            common += n * (both - pa * pb)
        determinant = own[a] * own[b] - common * common
        explained = 0.0
        if determinant > 1e-12 * own[a] * own[b] and determinant > 0:
            explained = with_a * with_a * own[b] - 2 * with_a * with_b * common + with_b * with_b * own[a]
            explained /= determinant
        mean[pair] = e
        variance[pair] = max(0.0, plain - explained)


@numba.njit(nogil=True, cache=True)
def trade(indptr, units, entry, order, label, generator):
    """One round of curveball: neighbours in `order` `[tokens]` of the same `label` trade, in place, what only one of
    them has; entry `[entries]` travels with its unit."""
    widest = 0
    for row in range(len(indptr) - 1):
        widest = max(widest, indptr[row + 1] - indptr[row])
    bag, bag_entry = np.empty(2 * widest, units.dtype), np.empty(2 * widest, entry.dtype)
    place = np.empty(2 * widest, np.int64)
    k = 0
    while k + 1 < len(order):
        t, u = order[k], order[k + 1]
        if label[t] != label[u]:
            k += 1
            continue
        k += 2
        size, of_t = 0, 0
        a, b = indptr[t], indptr[u]
        while a < indptr[t + 1] or b < indptr[u + 1]:
            if b == indptr[u + 1] or (a < indptr[t + 1] and units[a] < units[b]):
                place[size] = a
                of_t += 1
                size += 1
                a += 1
            elif a == indptr[t + 1] or units[b] < units[a]:
                place[size] = b
                size += 1
                b += 1
            else:
                a += 1
                b += 1
        for m in range(size):
            bag[m], bag_entry[m] = units[place[m]], entry[place[m]]
        for m in range(size - 1, 0, -1):
            other = int(generator.random() * (m + 1))
            bag[m], bag[other] = bag[other], bag[m]
            bag_entry[m], bag_entry[other] = bag_entry[other], bag_entry[m]
        # Places of t take the first of the shuffled bag, those of u the others.
        next_t, next_u = 0, of_t
        for m in range(size):
            if indptr[t] <= place[m] < indptr[t + 1]:
                units[place[m]], entry[place[m]] = bag[next_t], bag_entry[next_t]
                next_t += 1
            else:
                units[place[m]], entry[place[m]] = bag[next_u], bag_entry[next_u]
                next_u += 1
        _sort(units, entry, indptr[t], indptr[t + 1])
        _sort(units, entry, indptr[u], indptr[u + 1])


@numba.njit(nogil=True, cache=True)
def _sort(units, entry, start, stop):
    """By unit; rows are short and nearly sorted."""
    for m in range(start + 1, stop):
        unit, number = units[m], entry[m]
        n = m
        while n > start and units[n - 1] > unit:
            units[n], entry[n] = units[n - 1], entry[n - 1]
            n -= 1
        units[n], entry[n] = unit, number
