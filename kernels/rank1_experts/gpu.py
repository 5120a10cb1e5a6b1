"""Rank-1 experts on GPU (Triton). One program per token reads its expert rows a few slots at a time.

Nothing of size tokens × slots × d is formed. Table gradients: stable sort and sums in a fixed order (rows_gpu.py).
Written for float32, bfloat16 and float16 with float32 sums.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels import rows_gpu

KINDS = {"relu": 0, "relu2": 1, "gelu": 2, "silu": 3}
SLOTS = 8  # rows read at once


def forward(x: Tensor, u: Tensor, v: Tensor, indices: Tensor, gates: Tensor, activation: str) -> tuple[Tensor, Tensor]:
    """(y `[tokens, d]`, h `[tokens, slots]`: the pre-activations uᵀx, float32, kept for backward)."""
    x, u, v, indices, gates = (t.contiguous() for t in (x, u, v, indices, gates))
    y, h = torch.empty_like(x), torch.empty(gates.shape, dtype=torch.float32, device=x.device)
    if y.numel():
        _forward[(len(x),)](
            x, u, v, indices, gates, y, h, gates.shape[1], x.shape[1], KIND=KINDS[activation], WRITE=True,
            SLOTS=SLOTS, BLOCK=triton.next_power_of_2(x.shape[1]),
        )  # fmt: skip
    return y, h


def coefficients(x: Tensor, u: Tensor, indices: Tensor, gates: Tensor, activation: str) -> tuple[Tensor, Tensor]:
    """(gate · act(uᵀx), uᵀx), both `[tokens, slots]`."""
    x, u, indices, gates = (t.contiguous() for t in (x, u, indices, gates))
    c, h = torch.empty_like(gates), torch.empty(gates.shape, dtype=torch.float32, device=x.device)
    if c.numel():
        _forward[(len(x),)](
            x, u, u, indices, gates, c, h, gates.shape[1], x.shape[1], KIND=KINDS[activation], WRITE=False,
            SLOTS=SLOTS, BLOCK=triton.next_power_of_2(x.shape[1]),
        )  # fmt: skip
    return c, h


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
    dx, dgates, dh, c = _backward_of_tokens(dy, u, v, indices, gates, h, activation, True)
    groups = _groups(indices)
    du = rows_gpu.sum_rows(groups, dh, x, len(u), compact)
    dv = rows_gpu.sum_rows(groups, c, dy, len(v), compact)
    return dx, dgates, groups.touched, du, dv


def backward_coefficients(
    dc: Tensor, x: Tensor, u: Tensor, indices: Tensor, gates: Tensor, h: Tensor, activation: str, compact: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(dx, dgates, experts touched, du) of `coefficients`."""
    dx, dgates, dh, _ = _backward_of_tokens(dc, u, u, indices, gates, h, activation, False)
    groups = _groups(indices)
    return dx, dgates, groups.touched, rows_gpu.sum_rows(groups, dh, x, len(u), compact)


def _groups(indices: Tensor) -> rows_gpu.RowPieces:
    tokens, slots = indices.shape
    return rows_gpu.group(torch.arange(tokens + 1, device=indices.device) * slots, indices.flatten())


def _backward_of_tokens(
    dy: Tensor, u: Tensor, v: Tensor, indices: Tensor, gates: Tensor, h: Tensor, activation: str, write: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dy, u, v, indices, gates = (t.contiguous() for t in (dy, u, v, indices, gates))
    dx = torch.empty(len(dy), u.shape[1], dtype=u.dtype, device=u.device)
    dgates, dh, c = torch.empty_like(gates), torch.empty_like(h), torch.empty_like(h)
    if dx.numel():
        _backward[(len(dy),)](
            dy, u, v, indices, gates, h, dx, dgates, dh, c, gates.shape[1], u.shape[1], KIND=KINDS[activation],
            WRITE=write, SLOTS=SLOTS, BLOCK=triton.next_power_of_2(u.shape[1]),
        )  # fmt: skip
    return dx, dgates, dh, c


@triton.jit
def _act(h, KIND: tl.constexpr):
    if KIND == 0:
        return tl.where(h > 0, h, 0.0)
    elif KIND == 1:
        return tl.where(h > 0, h * h, 0.0)
    elif KIND == 2:
        return h * 0.5 * (1.0 + tl.erf(h * 0.7071067811865476))
    else:
        return h / (1.0 + tl.exp(-h))


@triton.jit
def _slope(h, KIND: tl.constexpr):
    if KIND == 0:
        return tl.where(h > 0, 1.0, 0.0)
    elif KIND == 1:
        return tl.where(h > 0, 2.0 * h, 0.0)
    elif KIND == 2:
        return 0.5 * (1.0 + tl.erf(h * 0.7071067811865476)) + h * tl.exp(-0.5 * h * h) * 0.3989422804014327
    else:
        s = 1.0 / (1.0 + tl.exp(-h))
        return s * (1.0 + h * (1.0 - s))


@triton.jit
def _forward(
    x, u, v, indices, gates, y, h, slots, d,
    KIND: tl.constexpr, WRITE: tl.constexpr, SLOTS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    j = tl.arange(0, BLOCK)
    column = j < d
    inputs = tl.load(x + token * d + j, mask=column, other=0.0).to(tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    for begin in range(0, slots, SLOTS):
        s = begin + tl.arange(0, SLOTS)
        slot = s < slots
        at = tl.load(indices + token * slots + s, mask=slot, other=0)[:, None] * d + j[None, :]
        both = slot[:, None] & column[None, :]
        dots = tl.sum(tl.load(u + at, mask=both, other=0.0).to(tl.float32) * inputs[None, :], 1)
        tl.store(h + token * slots + s, dots, mask=slot)
        c = tl.load(gates + token * slots + s, mask=slot, other=0.0).to(tl.float32) * _act(dots, KIND)
        if WRITE:
            total += tl.sum(c[:, None] * tl.load(v + at, mask=both, other=0.0).to(tl.float32), 0)
        else:
            tl.store(y + token * slots + s, c.to(y.dtype.element_ty), mask=slot)
    if WRITE:
        tl.store(y + token * d + j, total.to(y.dtype.element_ty), mask=column)


@triton.jit
def _backward(
    dy, u, v, indices, gates, h, dx, dgates, dh, c, slots, d,
    KIND: tl.constexpr, WRITE: tl.constexpr, SLOTS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    j = tl.arange(0, BLOCK)
    column = j < d
    if WRITE:
        outer = tl.load(dy + token * d + j, mask=column, other=0.0).to(tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    for begin in range(0, slots, SLOTS):
        s = begin + tl.arange(0, SLOTS)
        slot = s < slots
        place = token * slots + s
        at = tl.load(indices + place, mask=slot, other=0)[:, None] * d + j[None, :]
        both = slot[:, None] & column[None, :]
        if WRITE:
            reads = tl.sum(tl.load(v + at, mask=both, other=0.0).to(tl.float32) * outer[None, :], 1)
        else:
            reads = tl.load(dy + place, mask=slot, other=0.0).to(tl.float32)
        gate = tl.load(gates + place, mask=slot, other=0.0).to(tl.float32)
        before = tl.load(h + place, mask=slot, other=0.0)
        act = _act(before, KIND)
        weight = reads * gate * _slope(before, KIND)
        tl.store(dgates + place, (reads * act).to(dgates.dtype.element_ty), mask=slot)
        tl.store(dh + place, weight, mask=slot)
        tl.store(c + place, gate * act, mask=slot)
        total += tl.sum(weight[:, None] * tl.load(u + at, mask=both, other=0.0).to(tl.float32), 0)
    tl.store(dx + token * d + j, total.to(dx.dtype.element_ty), mask=column)
