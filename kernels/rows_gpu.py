"""Rows of a table picked by number, in Triton: the counterpart of rows.py and segments.py.

One program sums one row (or one piece of a hot one) in a fixed order: no float atomics, results repeat to the bit.
Everything is loaded, made float32, computed, and stored in the tensor's own dtype. Offsets are 64 bits wide.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

PIECE = 128  # pairs summed by one program; fixed, because the order of a sum decides its last bits


@dataclass(frozen=True)
class RowPieces:
    """Pairs grouped by table row: pair numbers and tokens `[pairs]`; touched rows; pieces (see segments.RowGroups)."""

    order: Tensor
    tokens: Tensor
    touched: Tensor
    begin: Tensor  # [pieces] first pair
    end: Tensor  # [pieces]
    row: Tensor  # [pieces] place of the row among the touched
    first_piece: Tensor  # [touched + 1]


def block(d: int) -> int:
    """Width of a block of columns: a power of two, at most 1,024."""
    return min(triton.next_power_of_2(d), 1024)


def weighted_rows(indptr: Tensor, ids: Tensor, weights: Tensor, table: Tensor) -> Tensor:
    """out[t] = Σ over the entries of t of weights · table[ids]: `[tokens, d]`."""
    table = table.contiguous()
    tokens, d = len(indptr) - 1, table.shape[1]
    out = torch.empty(tokens, d, dtype=table.dtype, device=table.device)
    if out.numel():
        grid = (tokens, triton.cdiv(d, block(d)))
        _weighted_rows[grid](indptr, ids.contiguous(), weights.contiguous(), table, out, d, BLOCK=block(d))
    return out


def row_dots(indptr: Tensor, ids: Tensor, x: Tensor, table: Tensor) -> Tensor:
    """out[entry] = table[ids] · x[token of the entry]: `[entries]`."""
    x, table = x.contiguous(), table.contiguous()
    out = torch.empty(ids.shape, dtype=x.dtype, device=x.device)
    if out.numel():
        d = x.shape[1]
        _row_dots[(len(x),)](indptr, ids.contiguous(), x, table, out, d, BLOCK=block(d))
    return out


def table_gradient(indptr: Tensor, ids: Tensor, weights: Tensor, source: Tensor, n_rows: int) -> Tensor:
    """out[row] = Σ over the entries that name the row of weights · source[token]: `[n_rows, d]`."""
    return sum_rows(group(indptr, ids), weights, source, n_rows)


def unit_sums(units: Tensor, values: Tensor, n: int) -> Tensor:
    """Σ of the values of each unit: `[n]`, in a fixed order."""
    indptr = torch.arange(len(units) + 1, device=units.device)
    return table_gradient(
        indptr, units, values, torch.ones(len(units), 1, dtype=values.dtype, device=values.device), n
    )[:, 0]


def group(indptr: Tensor, ids: Tensor) -> RowPieces:
    """Stable sort of the pairs by table row, cut in pieces."""
    tokens = torch.repeat_interleave(indptr.diff(), output_size=ids.numel())
    ordered, order = ids.sort(stable=True)
    touched, counts = torch.unique_consecutive(ordered, return_counts=True)
    pieces = (counts + PIECE - 1) // PIECE
    first_piece = torch.cat([pieces.new_zeros(1), pieces.cumsum(0)])
    row = torch.repeat_interleave(pieces)
    within = torch.arange(len(row), device=ids.device) - first_piece[row]
    starts = counts.cumsum(0) - counts
    begin = starts[row] + within * PIECE
    end = torch.minimum(begin + PIECE, (starts + counts)[row])
    return RowPieces(order, tokens[order], touched, begin, end, row, first_piece)


def sum_rows(groups: RowPieces, weights: Tensor, source: Tensor, n_rows: int, compact: bool = False) -> Tensor:
    """out[row] = Σ over the pairs of the row of weight · source[token]: `[n_rows, d]`, or `[touched, d]` if compact."""
    source, d = source.contiguous(), source.shape[1]
    n_touched, width = len(groups.touched), block(source.shape[1])
    make = torch.empty if compact else torch.zeros
    out = make(n_touched if compact else n_rows, d, dtype=source.dtype, device=source.device)
    if n_touched:
        partials = torch.empty(len(groups.row), d, dtype=torch.float32, device=source.device)
        columns = triton.cdiv(d, width)
        _sum_pieces[(len(groups.row), columns)](
            groups.order,
            groups.tokens,
            groups.begin,
            groups.end,
            weights.contiguous(),
            source,
            partials,
            d,
            BLOCK=width,
        )
        targets = torch.arange(n_touched, device=source.device) if compact else groups.touched
        _sum_partials[(n_touched, columns)](groups.first_piece, targets, partials, out, d, BLOCK=width)
    return out


@triton.jit
def _weighted_rows(indptr, ids, weights, table, out, d, BLOCK: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    j = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = j < d
    total = tl.zeros([BLOCK], tl.float32)
    for entry in range(tl.load(indptr + token), tl.load(indptr + token + 1)):
        row = tl.load(table + tl.load(ids + entry) * d + j, mask=inside, other=0.0).to(tl.float32)
        total += tl.load(weights + entry).to(tl.float32) * row
    tl.store(out + token * d + j, total.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _row_dots(indptr, ids, x, table, out, d, BLOCK: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    for entry in range(tl.load(indptr + token), tl.load(indptr + token + 1)):
        at = tl.load(ids + entry) * d
        total = tl.zeros([BLOCK], tl.float32)
        for begin in range(0, d, BLOCK):
            j = begin + tl.arange(0, BLOCK)
            left = tl.load(table + at + j, mask=j < d, other=0.0).to(tl.float32)
            total += left * tl.load(x + token * d + j, mask=j < d, other=0.0).to(tl.float32)
        tl.store(out + entry, tl.sum(total, 0).to(out.dtype.element_ty))


@triton.jit
def _sum_pieces(order, tokens, begin, end, weights, source, partials, d, BLOCK: tl.constexpr):
    piece = tl.program_id(0).to(tl.int64)
    j = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = j < d
    total = tl.zeros([BLOCK], tl.float32)
    for i in range(tl.load(begin + piece), tl.load(end + piece)):
        weight = tl.load(weights + tl.load(order + i)).to(tl.float32)
        total += weight * tl.load(source + tl.load(tokens + i) * d + j, mask=inside, other=0.0).to(tl.float32)
    tl.store(partials + piece * d + j, total, mask=inside)


@triton.jit
def _sum_partials(first_piece, targets, partials, out, d, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    j = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = j < d
    total = tl.zeros([BLOCK], tl.float32)
    for piece in range(tl.load(first_piece + row), tl.load(first_piece + row + 1)):
        total += tl.load(partials + piece * d + j, mask=inside, other=0.0)
    tl.store(out + tl.load(targets + row) * d + j, total.to(out.dtype.element_ty), mask=inside)
