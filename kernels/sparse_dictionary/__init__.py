"""Sparse dictionaries: encoder product + selection, sparse decode, and gradients that touch only selected entries.

Everything is in compressed rows: `indptr` `[tokens + 1]` and, per entry, `units` and `values`. A fixed number of slots
per token is the special case that the `*_topk` and `*_slots` functions take as `[tokens, slots]`.

A training step: `pre = preactivations(x, w_enc, b_enc)` once without gradient; any number of `encode_*(…, pre=pre)` for
the main and the auxiliary selections; values rectified as one likes; `decode_*`. The gradient of every encode reaches
x, w_enc and b_enc at its selected entries; no gradient of size tokens × units is formed.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from kernels import dispatch, selection
from kernels.codes import Codes
from kernels.mixed import outside_autocast, widened

__all__ = [
    "decode",
    "decode_rows",
    "decode_slots",
    "encode_batch_topk",
    "encode_column_topk",
    "encode_positive",
    "encode_topk",
    "preactivations",
]

# Above this share of non-zeros a dense product is faster than any gather (a gelu MLP, where everything fires).
DENSE_ABOVE = 1 / 8


@outside_autocast
def preactivations(x: Tensor, w_enc: Tensor, b_enc: Tensor, out: Tensor | None = None) -> Tensor:
    """x w_enc + b_enc: `[tokens, n_units]` from x `[tokens, d_in]`, w_enc `[d_in, n_units]`, b_enc `[n_units]`.

    Differentiable without `out`. out: memory to write into (a buffer kept between steps spares the page faults of a
    fresh one, a third of the time of the product at 4,096 × 8,192).
    """
    x, w_enc, b_enc = widened(x, w_enc, b_enc)
    return torch.addmm(b_enc, x, w_enc) if out is None else torch.addmm(b_enc, x, w_enc, out=out)


@outside_autocast
def encode_topk(
    x: Tensor, w_enc: Tensor, b_enc: Tensor, k: int, pre: Tensor | None = None, among: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The k largest pre-activations of every token: (units, values), both `[tokens, k]`, values descending, not
    rectified.

    pre: `preactivations(x, w_enc, b_enc)` computed before, so that several selections share one product; it is only
    read, gradients go to x, w_enc and b_enc. among: boolean `[n_units]`, the units that may be chosen (aux_k).
    Raises ValueError when k exceeds the units that may be chosen.
    """
    x, w_enc, b_enc = widened(x, w_enc, b_enc)
    with torch.no_grad():
        a = preactivations(x, w_enc, b_enc) if pre is None else pre.detach()
        if among is None:
            values, units = selection.topk(a, k)
        else:
            allowed = among.nonzero()[:, 0]
            values, places = selection.topk(a.index_select(1, allowed), k)
            units = allowed[places]
    indptr = _slots_indptr(units)
    return units, _with_gradient(x, w_enc, b_enc, indptr, units.flatten(), values.flatten()).view(values.shape)


@outside_autocast
def encode_batch_topk(
    x: Tensor, w_enc: Tensor, b_enc: Tensor, m: int, pre: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The m largest pre-activations of the whole batch: (indptr `[tokens + 1]`, units `[m]`, values `[m]`).

    Mutual Choice (arXiv 2411.02124) with m = k · tokens. `pre` as in `encode_topk`.
    """
    x, w_enc, b_enc = widened(x, w_enc, b_enc)
    with torch.no_grad():
        a = preactivations(x, w_enc, b_enc) if pre is None else pre.detach()
        indptr, units, values = selection.batch_topk(a, m)
    return indptr, units, _with_gradient(x, w_enc, b_enc, indptr, units, values)


@outside_autocast
def encode_column_topk(
    x: Tensor, w_enc: Tensor, b_enc: Tensor, m: Tensor, pre: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """For every unit i its m[i] largest pre-activations in the batch: (indptr, units `[Σ m]`, values `[Σ m]`).

    Feature Choice (arXiv 2411.02124). m int64 `[n_units]`. `pre` as in `encode_topk`.
    """
    x, w_enc, b_enc = widened(x, w_enc, b_enc)
    with torch.no_grad():
        a = preactivations(x, w_enc, b_enc) if pre is None else pre.detach()
        indptr, units, values = selection.column_topk(a, m)
    return indptr, units, _with_gradient(x, w_enc, b_enc, indptr, units, values)


@outside_autocast
def encode_positive(
    x: Tensor, w_enc: Tensor, b_enc: Tensor, pre: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """What relu lets through: (indptr `[tokens + 1]`, units, values). `pre` as in `encode_topk`."""
    x, w_enc, b_enc = widened(x, w_enc, b_enc)
    with torch.no_grad():
        a = preactivations(x, w_enc, b_enc) if pre is None else pre.detach()
        indptr, units, values = selection.positive(a)
    return indptr, units, _with_gradient(x, w_enc, b_enc, indptr, units, values)


@outside_autocast
def decode(codes: Codes, w_dec: Tensor) -> Tensor:
    """Σ over a token's entries of value · w_dec[unit]: `[tokens, d]`; w_dec `[n_units, d]`. Linear in codes.values."""
    if codes.nnz > DENSE_ABOVE * codes.n_tokens * codes.n_units:
        return torch.matmul(*widened(codes.dense(), w_dec))
    return decode_rows(codes.indptr, codes.units, codes.values, w_dec)


@outside_autocast
def decode_rows(indptr: Tensor, units: Tensor, values: Tensor, w_dec: Tensor) -> Tensor:
    """`decode` of entries given as compressed rows: indptr `[tokens + 1]`, units and values `[entries]`."""
    values, w_dec = widened(values, w_dec)
    implementation = dispatch.choose("sparse_decode", values.device.type, values.dtype)
    if implementation == "reference":
        from kernels.sparse_dictionary import reference

        return reference.decode_rows(indptr, units, values, w_dec)
    return _decode(indptr, units, values, w_dec, implementation)


def decode_slots(units: Tensor, values: Tensor, w_dec: Tensor) -> Tensor:
    """`decode` of a fixed number of slots per token, `[tokens, slots]`. A unit may stand in several of them."""
    return decode_rows(_slots_indptr(units), units.flatten(), values.flatten(), w_dec)


def _slots_indptr(units: Tensor) -> Tensor:
    tokens, slots = units.shape
    return torch.arange(tokens + 1, device=units.device) * slots


def _with_gradient(x: Tensor, w_enc: Tensor, b_enc: Tensor, indptr: Tensor, units: Tensor, values: Tensor) -> Tensor:
    """`values`, which are pre-activations already computed, as a function of x, w_enc and b_enc."""
    implementation = dispatch.choose("sparse_encode", x.device.type, x.dtype)
    if implementation == "reference":
        from kernels.sparse_dictionary import reference

        return reference.entries(x, w_enc, b_enc, indptr, units)
    return _entries(x, w_enc, b_enc, indptr, units, values, implementation)


@torch.library.custom_op("harness::sparse_decode", mutates_args=())
def _decode(indptr: Tensor, units: Tensor, values: Tensor, w_dec: Tensor, implementation: str) -> Tensor:
    return dispatch.load(__name__, implementation).weighted_rows(indptr, units, values, w_dec)


@_decode.register_fake
def _(indptr, units, values, w_dec, implementation):
    return values.new_empty(indptr.shape[0] - 1, w_dec.shape[1])


@torch.library.custom_op("harness::sparse_decode_backward", mutates_args=())
def _decode_backward(
    dy: Tensor, indptr: Tensor, units: Tensor, values: Tensor, w_dec: Tensor, table: bool, implementation: str
) -> tuple[Tensor, Tensor]:
    module = dispatch.load(__name__, implementation)
    dvalues = module.row_dots(indptr, units, dy, w_dec)
    if not table:  # a frozen decoder
        return dvalues, w_dec.new_empty(0, w_dec.shape[1])
    return dvalues, module.table_gradient(indptr, units, values, dy, len(w_dec))


@_decode_backward.register_fake
def _(dy, indptr, units, values, w_dec, table, implementation):
    return values.new_empty(values.shape), w_dec.new_empty(w_dec.shape[0] if table else 0, w_dec.shape[1])


def _decode_setup(ctx, inputs, output):
    indptr, units, values, w_dec, ctx.implementation = inputs
    ctx.save_for_backward(indptr, units, values, w_dec)


def _decode_gradients(ctx, dy):
    table = ctx.needs_input_grad[3]
    indptr, units, values, w_dec = ctx.saved_tensors
    dvalues, dw_dec = _decode_backward(dy, indptr, units, values, w_dec, table, ctx.implementation)
    return None, None, dvalues, dw_dec if table else None, None


_decode.register_autograd(_decode_gradients, setup_context=_decode_setup)


@torch.library.custom_op("harness::sparse_encode", mutates_args=())
def _entries(
    x: Tensor, w_enc: Tensor, b_enc: Tensor, indptr: Tensor, units: Tensor, values: Tensor, implementation: str
) -> Tensor:
    return values.clone()  # an op may not return its input


@_entries.register_fake
def _(x, w_enc, b_enc, indptr, units, values, implementation):
    return values.new_empty(values.shape)


@torch.library.custom_op("harness::sparse_encode_backward", mutates_args=())
def _entries_backward(
    dvalues: Tensor, x: Tensor, w_enc: Tensor, indptr: Tensor, units: Tensor, wants_x: bool, implementation: str
) -> tuple[Tensor, Tensor, Tensor]:
    module = dispatch.load(__name__, implementation)
    # Columns of the encoder are read as rows. Where the parameter is stored transposed this is no copy.
    rows = w_enc.t().contiguous() if wants_x else w_enc.t()
    dx = module.weighted_rows(indptr, units, dvalues, rows) if wants_x else x.new_empty(0, x.shape[1])
    db = torch.bincount(units, dvalues, minlength=len(rows)) if x.device.type == "cpu" else None
    if db is None:
        db = module.unit_sums(units, dvalues, len(rows))
    return dx, module.table_gradient(indptr, units, dvalues, x, len(rows)), db.to(x.dtype)


@_entries_backward.register_fake
def _(dvalues, x, w_enc, indptr, units, wants_x, implementation):
    d, n = w_enc.shape
    return x.new_empty(x.shape[0] if wants_x else 0, d), x.new_empty(n, d), x.new_empty(n)


def _entries_setup(ctx, inputs, output):
    x, w_enc, _, indptr, units, _, ctx.implementation = inputs
    ctx.save_for_backward(x, w_enc, indptr, units)


def _entries_gradients(ctx, dvalues):
    wants_x = ctx.needs_input_grad[0]
    x, w_enc, indptr, units = ctx.saved_tensors
    dx, dw, db = _entries_backward(dvalues, x, w_enc, indptr, units, wants_x, ctx.implementation)
    return dx if wants_x else None, dw.t(), db, None, None, None, None


_entries.register_autograd(_entries_gradients, setup_context=_entries_setup)


# What the method needs: two operations for every entry and dimension, forward and for each of two gradients. The
# entries' own forward is counted in the encoder product.
@register_flop_formula(torch.ops.harness.sparse_decode)
def _(indptr_shape, units_shape, values_shape, w_dec_shape, *_args, **_kwargs) -> int:
    return 2 * units_shape[0] * w_dec_shape[1]


@register_flop_formula(torch.ops.harness.sparse_decode_backward)
def _(dy_shape, indptr_shape, units_shape, values_shape, w_dec_shape, table, *_args, **_kwargs) -> int:
    return (4 if table else 2) * units_shape[0] * w_dec_shape[1]


@register_flop_formula(torch.ops.harness.sparse_encode_backward)
def _(dvalues_shape, x_shape, w_enc_shape, indptr_shape, units_shape, wants_x, *_args, **_kwargs) -> int:
    return (4 if wants_x else 2) * units_shape[0] * x_shape[1]
