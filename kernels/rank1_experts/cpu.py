"""Rank-1 experts on CPU (numba, float32). Nothing of size tokens × slots × d is formed.

Forward and the token side of backward walk over tokens and read expert rows in fours (the tables leave the cache, so
several reads must be in flight), one table a pass: two at once drive each other out of the last cache. The expert side
is a counting sort and segmented sums (kernels/segments.py). Slots whose activation and slope are both zero (half of
them under relu) cost nothing but the dot product.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from kernels import segments
from kernels.memory import array, empty_gradient, table
from kernels.rows import add_rows, dots, fetch_rows
from kernels.threads import ZERO, beside, check_range, jit, leaf, parallel

ONE, HALF, ROOT_HALF = np.float32(1), np.float32(0.5), np.float32(math.sqrt(0.5))
NORMAL = np.float32(1 / math.sqrt(2 * math.pi))  # the standard normal density at 0
KINDS = {"relu": 0, "relu2": 1, "gelu": 2, "silu": 3}


def forward(x: Tensor, u: Tensor, v: Tensor, indices: Tensor, gates: Tensor, activation: str) -> tuple[Tensor, Tensor]:
    """(y `[tokens, d]`, h `[tokens, slots]`: the pre-activations uᵀx, kept for backward)."""
    coefficient, h = coefficients(x, u, indices, gates, activation)
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    parallel(_add_experts, len(x), table(v), array(indices), array(coefficient), array(y))
    return y, h


def coefficients(x: Tensor, u: Tensor, indices: Tensor, gates: Tensor, activation: str) -> tuple[Tensor, Tensor]:
    """(gate · act(uᵀx), uᵀx), both `[tokens, slots]`."""
    check_range(indices, len(u))
    h = torch.empty_like(gates).contiguous()
    coefficient = torch.empty_like(h)
    parallel(_project, len(x), array(x), table(u), array(indices), array(h))
    parallel(_activate, len(x), array(gates), array(h), KINDS[activation], array(coefficient))
    return coefficient, h


def backward(
    dy: Tensor,
    x: Tensor,
    u: Tensor,
    v: Tensor,
    indices: Tensor,
    gates: Tensor,
    h: Tensor,
    activation: str,
    compact: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(dx, dgates, experts touched, du, dv); du and dv `[n_experts, d]`, or `[touched, d]` if compact."""
    dx = torch.empty_like(dy, memory_format=torch.contiguous_format)
    dgates, dh, c = (torch.empty_like(h) for _ in range(3))  # dh weighs x in du, c weighs dy in dv
    parallel(
        _backward_slots, len(dy), array(dy), table(v), array(indices), array(gates), array(h), KINDS[activation],
        array(dgates), array(dh), array(c),
    )  # fmt: skip
    # Grouping waits on the cache and keeps one core busy, reading experts waits on memory: neither needs the other.
    grouping = beside(segments.group, array(indices), indices.shape[1], array(dh), array(c), len(u))
    parallel(_add_experts, len(dy), table(u), array(indices), array(dh), array(dx))
    groups = grouping()
    rows = len(groups.touched) if compact else len(u)
    du, dv = (empty_gradient(rows, x.shape[1]) for _ in range(2))
    segments.sum_rows(groups, groups.first, array(x), array(du), compact)
    segments.sum_rows(groups, groups.second, array(dy), array(dv), compact)
    return dx, dgates, torch.from_numpy(groups.touched), du, dv


def backward_coefficients(
    dc: Tensor, x: Tensor, u: Tensor, indices: Tensor, gates: Tensor, h: Tensor, activation: str, compact: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(dx, dgates, experts touched, du) of `coefficients`."""
    dx = torch.empty_like(x, memory_format=torch.contiguous_format)
    dgates, dh = torch.empty_like(h), torch.empty_like(h)
    parallel(
        _backward_activation, len(dc), array(dc), array(gates), array(h), KINDS[activation], array(dgates), array(dh)
    )
    parallel(_add_experts, len(dc), table(u), array(indices), array(dh), array(dx))
    groups = segments.group(array(indices), indices.shape[1], array(dh), array(dh), len(u))
    du = empty_gradient(len(groups.touched) if compact else len(u), x.shape[1])
    segments.sum_rows(groups, groups.first, array(x), array(du), compact)
    return dx, dgates, torch.from_numpy(groups.touched), du


@leaf
def _activation(h, kind, act, slope):
    """act and its derivative at every element of the row h. One loop a kind, so that each becomes vector code."""
    if kind == 0:
        for s in range(h.shape[0]):
            act[s] = ZERO if h[s] < 0 else h[s]  # so written, NaN passes through
            slope[s] = ZERO if h[s] <= 0 else ONE
    elif kind == 1:
        for s in range(h.shape[0]):
            act[s] = ZERO if h[s] < 0 else h[s] * h[s]
            slope[s] = ZERO if h[s] < 0 else h[s] + h[s]
    elif kind == 2:
        for s in range(h.shape[0]):
            below = HALF * math.erfc(-h[s] * ROOT_HALF)  # not 1 + erf: that cancels in the tail
            act[s] = h[s] * below
            slope[s] = below + h[s] * math.exp(-HALF * h[s] * h[s]) * NORMAL
    else:
        for s in range(h.shape[0]):
            sigmoid = ONE / (ONE + math.exp(-h[s]))
            act[s] = h[s] * sigmoid
            slope[s] = sigmoid * (ONE + h[s] * (ONE - sigmoid))


@leaf
def _project(x, u, indices, h, start, stop):
    slots = indices.shape[1]
    rows, out = indices.reshape(-1), h.reshape(-1)
    for t in range(start, stop):
        dots(u, x[t], rows, t * slots, (t + 1) * slots, stop * slots, out)


@jit
def _activate(gates, h, kind, out, start, stop):
    act, slope = np.empty_like(h[0]), np.empty_like(h[0])
    for t in range(start, stop):
        _activation(h[t], kind, act, slope)
        for s in range(h.shape[1]):
            out[t, s] = gates[t, s] * act[s]


@jit
def _add_experts(experts, indices, weights, out, start, stop):
    slots = indices.shape[1]
    rows, kept = np.empty(slots + 1, np.int64), np.empty(slots + 1, np.float32)
    for t in range(start, stop):
        n = 0
        for s in range(slots):  # no branch: which slots are silent is not predictable
            rows[n], kept[n] = indices[t, s], weights[t, s]
            n += kept[n] != 0
        fetch_rows(experts, rows, 0, min(4, n))
        add_rows(experts, rows, kept, n, out[t])


@jit
def _backward_slots(dy, v, indices, gates, h, kind, dgates, dh, c, start, stop):
    slots = indices.shape[1]
    act, slope = np.empty_like(h[0]), np.empty_like(h[0])
    reads, at, rows = np.empty(slots + 1, np.float32), np.empty(slots + 1, np.int64), np.empty(slots + 1, np.int64)
    for t in range(start, stop):
        _activation(h[t], kind, act, slope)
        n = 0
        for s in range(slots):
            dgates[t, s], dh[t, s], c[t, s] = 0, 0, gates[t, s] * act[s]
            at[n], rows[n] = s, indices[t, s]
            n += (act[s] != 0) | (slope[s] != 0)
        fetch_rows(v, rows, 0, min(4, n))
        dots(v, dy[t], rows, 0, n, n, reads)
        for i in range(n):
            s = at[i]
            dgates[t, s] = reads[i] * act[s]
            dh[t, s] = reads[i] * gates[t, s] * slope[s]


@jit
def _backward_activation(dc, gates, h, kind, dgates, dh, start, stop):
    act, slope = np.empty_like(h[0]), np.empty_like(h[0])
    for t in range(start, stop):
        _activation(h[t], kind, act, slope)
        for s in range(h.shape[1]):
            dgates[t, s] = dc[t, s] * act[s]
            dh[t, s] = dc[t, s] * gates[t, s] * slope[s]
