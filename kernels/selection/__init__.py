"""Selection without sorting everything: the largest per row, over a whole batch or per column; and what is positive.

Ties go to the lower index, so that a selection is one definite set. NaN counts as larger than everything. Gradients
flow to the selected entries.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels import dispatch

__all__ = ["batch_topk", "column_topk", "positive", "topk"]


def topk(a: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """(values, indices) `[rows, k]` of the k largest of every row of `a` `[rows, n]`, descending. indices int64.

    Raises ValueError unless 0 <= k <= n.
    """
    if not 0 <= k <= a.shape[1]:
        raise ValueError(f"k={k} is outside 0..{a.shape[1]}, the length of a row")
    return _topk(a, k, dispatch.choose("topk", a.device.type, a.dtype))


def batch_topk(a: Tensor, m: int) -> tuple[Tensor, Tensor, Tensor]:
    """The m largest of all entries of `a` `[rows, n]` as compressed rows: (indptr `[rows + 1]`, columns, values).

    Columns ascend within a row. Raises ValueError unless 0 <= m <= rows · n.
    """
    if not 0 <= m <= a.numel():
        raise ValueError(f"m={m} is outside 0..{a.numel()}, the entries of the batch")
    return _batch_topk(a, m, dispatch.choose("batch_topk", a.device.type, a.dtype))


def column_topk(a: Tensor, m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The m[i] largest of every column i of `a` `[rows, n]`: (indptr `[rows + 1]`, columns, values `[Σ m]`).

    m int64 `[n]`, each 0 <= m[i] <= rows. Compressed by rows as in `batch_topk`. Raises ValueError otherwise.
    """
    if m.shape != a.shape[1:]:
        raise ValueError(f"m has shape {tuple(m.shape)}, a has {a.shape[1]} columns: give one number for each")
    if m.numel() and not 0 <= int(m.min()) <= int(m.max()) <= a.shape[0]:
        raise ValueError(f"m spans {int(m.min())}..{int(m.max())}, allowed is 0..{a.shape[0]}, the rows of the batch")
    return _column_topk(a, m, int(m.sum()), dispatch.choose("column_topk", a.device.type, a.dtype))


def positive(a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What relu lets through of `a` `[rows, n]`, as compressed rows like `batch_topk`: all that is above 0, and NaN.

    Not for `torch.compile` or the flop counter: how much there is depends on the values. No gradient.
    """
    implementation = dispatch.choose("positive", a.device.type, a.dtype, has=("cpu",))
    return dispatch.load(__name__, implementation).positive(a.detach())


@torch.library.custom_op("harness::topk", mutates_args=())
def _topk(a: Tensor, k: int, implementation: str) -> tuple[Tensor, Tensor]:
    values, indices = dispatch.load(__name__, implementation).topk(a, k)
    return values.contiguous(), indices.contiguous()


@_topk.register_fake
def _(a, k, implementation):
    return a.new_empty(a.shape[0], k), a.new_empty(a.shape[0], k, dtype=torch.long)


def _topk_backward(ctx, dvalues, _):
    (indices,) = ctx.saved_tensors
    return dvalues.new_zeros(ctx.shape).scatter(1, indices, dvalues), None, None


def _topk_setup(ctx, inputs, output):
    ctx.shape = inputs[0].shape
    ctx.save_for_backward(output[1])


_topk.register_autograd(_topk_backward, setup_context=_topk_setup)


@torch.library.custom_op("harness::batch_topk", mutates_args=())
def _batch_topk(a: Tensor, m: int, implementation: str) -> tuple[Tensor, Tensor, Tensor]:
    return dispatch.load(__name__, implementation).batch_topk(a, m)


@_batch_topk.register_fake
def _(a, m, implementation):
    return a.new_empty(a.shape[0] + 1, dtype=torch.long), a.new_empty(m, dtype=torch.long), a.new_empty(m)


@torch.library.custom_op("harness::column_topk", mutates_args=())
def _column_topk(a: Tensor, m: Tensor, total: int, implementation: str) -> tuple[Tensor, Tensor, Tensor]:
    return dispatch.load(__name__, implementation).column_topk(a, m)


@_column_topk.register_fake
def _(a, m, total, implementation):
    return a.new_empty(a.shape[0] + 1, dtype=torch.long), a.new_empty(total, dtype=torch.long), a.new_empty(total)


def _ragged_setup(ctx, inputs, output):
    ctx.shape, ctx.unused = inputs[0].shape, len(inputs) - 1
    ctx.save_for_backward(output[0], output[1])


def _ragged_backward(ctx, _indptr, _columns, dvalues):
    indptr, columns = ctx.saved_tensors
    rows = torch.repeat_interleave(indptr.diff(), output_size=columns.numel())
    return dvalues.new_zeros(ctx.shape).index_put((rows, columns), dvalues), *(None,) * ctx.unused


_batch_topk.register_autograd(_ragged_backward, setup_context=_ragged_setup)
_column_topk.register_autograd(_ragged_backward, setup_context=_ragged_setup)
