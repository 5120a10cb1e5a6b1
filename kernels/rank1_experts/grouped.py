"""Backward of rank-1 experts on CPU, expert by expert (numba, float32), where each is met by several tokens.

Token by token (cpu.py) every meeting of a token and an expert reads a row of u and a row of v from tables that do not
fit a core's cache. Here the pairs are sorted by expert, so the tables stream through once, and the other side, x or dy,
is cut into blocks of columns that stay near the core. Blocks are independent and each is summed in the order of the
pairs, so results repeat to the bit. (The forward pass gains nothing from this: measured, it was slower.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from kernels.threads import ZERO, jit, parallel

WIDTH = 128  # columns of a block
TOKENS = 2048  # tokens taken at a time: with WIDTH columns 1 MB
PAIRS_PER_EXPERT = 2  # with fewer, streaming the tables costs what it saves


def pays(pairs: int, n_experts: int, d: int) -> bool:
    """Whether this is possible, and the faster way: each thread needs a block of columns of its own."""
    return pairs >= PAIRS_PER_EXPERT * n_experts and d % WIDTH == 0 and d // WIDTH >= torch.get_num_threads()


@dataclass(frozen=True)
class Pairs:
    """Meetings of a token and an expert, sorted by expert, then by token.

    slots, tokens, experts `[pairs]`: flat slot (token · slots + slot), token, expert; first `[n_experts + 1]`: where
    each expert's pairs begin.
    """

    slots: np.ndarray
    tokens: np.ndarray
    experts: np.ndarray
    first: np.ndarray

    def __len__(self) -> int:
        return len(self.slots)


def backward(
    dy: np.ndarray, x: np.ndarray, u: np.ndarray, v: np.ndarray, indices: np.ndarray, gates: np.ndarray,
    h: np.ndarray, kind: int, activate: Callable[..., None],
    dx: np.ndarray, dgates: np.ndarray, du: np.ndarray, dv: np.ndarray,
) -> None:  # fmt: skip
    """Fills dx `[tokens, d]`, dgates `[tokens, slots]`, du and dv `[n_experts, d]`.

    h `[tokens, slots]`: uᵀx; `activate(h, kind, act, slope)` fills the activation and its derivative.
    """
    for begin in range(0, len(x), TOKENS):
        part = slice(begin, begin + TOKENS)
        flat = h[part].reshape(-1)
        act, slope = np.empty_like(flat), np.empty_like(flat)
        activate(flat, kind, act, slope)
        kept = (act != 0) | (slope != 0)
        pairs = Pairs(*_sort(indices[part].reshape(-1), kept, indices.shape[1], len(u)))
        reads = _dots(dy[part], v, pairs)
        act, gate = act[pairs.slots], gates[part].reshape(-1)[pairs.slots]
        of_u = reads * gate * slope[pairs.slots]
        dgates[part] = 0
        dgates[part].reshape(-1)[pairs.slots] = reads * act
        _spread(u, pairs.tokens, pairs.experts, of_u, dx[part])
        _collect(x[part], pairs, of_u, du, add=begin > 0)
        _collect(dy[part], pairs, gate * act, dv, add=begin > 0)


def _dots(x: np.ndarray, table: np.ndarray, pairs: Pairs) -> np.ndarray:
    """table[expert] · x[token] of every pair."""
    blocks = _packed(x)
    out = np.empty(len(pairs), np.float32)
    grain = -(-len(pairs) // torch.get_num_threads())
    parallel(_dots_of, len(pairs), blocks, _cut(table), pairs.tokens, pairs.experts, out, grain=max(1, grain))
    return out


def _spread(table: np.ndarray, tokens: np.ndarray, experts: np.ndarray, weights: np.ndarray, out: np.ndarray) -> None:
    """out[token] = Σ over its pairs of weight · table[expert]."""
    out = _cut(out)
    parallel(_spread_to, out.shape[1], _cut(table), tokens, experts, weights, out, grain=1)


def _collect(source: np.ndarray, pairs: Pairs, weights: np.ndarray, out: np.ndarray, *, add: bool) -> None:
    """out[expert] = Σ over its pairs of weight · source[token], or that added to what is there."""
    blocks = _packed(source)
    parallel(_collect_from, len(blocks), blocks, pairs.tokens, weights, pairs.first, _cut(out), add, grain=1)


def _packed(x: np.ndarray) -> np.ndarray:
    """x `[tokens, d]` as `[blocks, tokens, WIDTH]`: columns of a block lie together, or its rows would compete for the
    same places in the cache."""
    cut = _cut(x)
    out = np.empty((cut.shape[1], len(x), cut.shape[2]), np.float32)
    parallel(_pack, len(out), cut, out, grain=1)
    return out


def _cut(rows: np.ndarray) -> np.ndarray:
    """`[n, d]` seen as `[n, blocks, width]`."""
    return rows.reshape(len(rows), -1, WIDTH)


@jit
def _sort(ids, kept, slots, n_experts):
    first = np.zeros(n_experts + 1, np.int64)
    for pair in range(ids.shape[0]):
        first[ids[pair] + 1] += kept[pair]
    for expert in range(n_experts):
        first[expert + 1] += first[expert]
    total = first[n_experts]
    # One more place at the end, where pairs that are not kept land: cheaper than a branch nobody can predict.
    at, tokens, experts = np.empty(total + 1, np.int32), np.empty(total + 1, np.int32), np.empty(total + 1, np.int32)
    for token in range(ids.shape[0] // slots):
        for pair in range(token * slots, (token + 1) * slots):
            expert = ids[pair]
            place = first[expert]
            first[expert] = place + kept[pair]
            place = place if kept[pair] else total
            at[place] = pair
            tokens[place] = token
            experts[place] = expert
    for expert in range(n_experts, 0, -1):  # each has moved on to where the next one begins
        first[expert] = first[expert - 1]
    first[0] = 0
    return at[:total], tokens[:total], experts[:total], first


@jit
def _pack(x, out, start, stop):
    for block in range(start, stop):
        for token in range(x.shape[0]):
            for j in range(WIDTH):
                out[block, token, j] = x[token, block, j]


@jit
def _dots_of(blocks, table, tokens, experts, out, start, stop):
    for block in range(blocks.shape[0]):
        pair = start
        while pair < stop:
            # Four at a time keep four sums in flight; what is missing to four is the last one again.
            p1, p2, p3 = min(pair + 1, stop - 1), min(pair + 2, stop - 1), min(pair + 3, stop - 1)
            t0, t1, t2, t3 = tokens[pair], tokens[p1], tokens[p2], tokens[p3]
            e0, e1, e2, e3 = experts[pair], experts[p1], experts[p2], experts[p3]
            a0, a1, a2, a3 = ZERO, ZERO, ZERO, ZERO
            for j in range(WIDTH):
                a0 += blocks[block, t0, j] * table[e0, block, j]
                a1 += blocks[block, t1, j] * table[e1, block, j]
                a2 += blocks[block, t2, j] * table[e2, block, j]
                a3 += blocks[block, t3, j] * table[e3, block, j]
            if block > 0:
                a0 += out[pair]
                a1 += out[p1]
                a2 += out[p2]
                a3 += out[p3]
            out[pair], out[p1], out[p2], out[p3] = a0, a1, a2, a3
            pair += 4


@jit
def _spread_to(table, tokens, experts, weights, out, start, stop):
    sums = np.empty((out.shape[0], out.shape[2]), np.float32)
    for block in range(start, stop):
        for token in range(out.shape[0]):
            for j in range(WIDTH):
                sums[token, j] = 0
        for pair in range(tokens.shape[0]):
            token, expert, weight = tokens[pair], experts[pair], weights[pair]
            for j in range(WIDTH):
                sums[token, j] += weight * table[expert, block, j]
        for token in range(out.shape[0]):
            for j in range(WIDTH):
                out[token, block, j] = sums[token, j]


@jit
def _collect_from(blocks, tokens, weights, first, out, add, start, stop):
    for block in range(start, stop):
        for expert in range(out.shape[0]):
            if not add:
                for j in range(WIDTH):
                    out[expert, block, j] = 0
            end = first[expert + 1]
            pair = first[expert]
            while pair < end:
                p1, p2, p3 = min(pair + 1, end - 1), min(pair + 2, end - 1), min(pair + 3, end - 1)
                t0, t1, t2, t3 = tokens[pair], tokens[p1], tokens[p2], tokens[p3]
                w0 = weights[pair]
                w1 = weights[p1] if p1 == pair + 1 else ZERO
                w2 = weights[p2] if p2 == pair + 2 else ZERO
                w3 = weights[p3] if p3 == pair + 3 else ZERO
                for j in range(WIDTH):
                    out[expert, block, j] += (
                        w0 * blocks[block, t0, j] + w1 * blocks[block, t1, j]
                        + w2 * blocks[block, t2, j] + w3 * blocks[block, t3, j]
                    )  # fmt: skip
                pair += 4
