"""Rank-1 experts: y = Σ_slots gate · act(uᵀx) · v over the experts each token retrieved.

PEER (arXiv 2407.04153), eᵢ(x) = σ(uᵢᵀx) vᵢ, weighted by the gates of all heads; slots are heads × k, flattened.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from kernels import dispatch
from kernels.mixed import outside_autocast, widened

__all__ = ["ACTIVATIONS", "coefficients", "rank1_experts"]

ACTIVATIONS = ("relu", "gelu", "silu", "relu2")


@outside_autocast
def rank1_experts(
    x: Tensor, u: Tensor, v: Tensor, indices: Tensor, gates: Tensor, activation: str, *, sparse_gradients: bool = False
) -> Tensor:
    """Σ over slots of gates · act(u[indices]ᵀ x) · v[indices]: `[tokens, d]`.

    x `[tokens, d]`; u, v `[n_experts, d]`; indices int64 `[tokens, slots]` in [0, n_experts), the same expert may stand
    in several slots; gates `[tokens, slots]`; activation: relu, gelu (exact, by erf), silu or relu2 (squared relu).
    sparse_gradients: the gradients of u and v are sparse COO tensors of the rows touched (for very large tables, with
    `kernels.row_sparse_adam.RowSparseAdam`).

    Computed in the widest type of x, u, v and gates, given back in that of x (`kernels/mixed.py`). Nothing of size
    tokens × slots × d is formed, except by the reference. Raises ValueError on an unknown activation,
    IndexError (on CPU) on an index outside the table.
    """
    wanted = x.dtype
    x, u, v, gates = widened(x, u, v, gates)
    implementation = _choose("rank1_experts", x, activation)
    if implementation == "reference":
        from kernels.rank1_experts import reference

        return reference.rank1_experts(x, u, v, indices, gates, activation, sparse_gradients).to(wanted)
    return _rank1_experts(x, u, v, indices, gates, activation, sparse_gradients, implementation)[0].to(wanted)


@outside_autocast
def coefficients(x: Tensor, u: Tensor, indices: Tensor, gates: Tensor, activation: str) -> Tensor:
    """What multiplies each expert's v: gates · act(u[indices]ᵀ x), `[tokens, slots]`. See `rank1_experts`."""
    wanted = x.dtype
    x, u, gates = widened(x, u, gates)
    implementation = _choose("rank1_coefficients", x, activation)
    if implementation == "reference":
        from kernels.rank1_experts import reference

        return reference.coefficients(x, u, indices, gates, activation).to(wanted)
    return _coefficients(x, u, indices, gates, activation, implementation)[0].to(wanted)


def _choose(op: str, x: Tensor, activation: str) -> str:
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation {activation!r} is not known: use one of {', '.join(ACTIVATIONS)}")
    return dispatch.choose(op, x.device.type, x.dtype)


@torch.library.custom_op("harness::rank1_experts", mutates_args=())
def _rank1_experts(
    x: Tensor, u: Tensor, v: Tensor, indices: Tensor, gates: Tensor, activation: str, sparse: bool, implementation: str
) -> tuple[Tensor, Tensor]:
    return dispatch.load(__name__, implementation).forward(x, u, v, indices, gates, activation)


@_rank1_experts.register_fake
def _(x, u, v, indices, gates, activation, sparse, implementation):
    return x.new_empty(x.shape), gates.new_empty(gates.shape)


@torch.library.custom_op("harness::rank1_experts_backward", mutates_args=())
def _rank1_experts_backward(
    dy: Tensor, x: Tensor, u: Tensor, v: Tensor, indices: Tensor, gates: Tensor, h: Tensor, activation: str,
    compact: bool, implementation: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    return dispatch.load(__name__, implementation).backward(dy, x, u, v, indices, gates, h, activation, compact)


@_rank1_experts_backward.register_fake
def _(dy, x, u, v, indices, gates, h, activation, compact, implementation):
    touched = torch.library.get_ctx().new_dynamic_size()
    rows = touched if compact else u.shape[0]
    d = x.shape[1]
    return (
        x.new_empty(x.shape), gates.new_empty(gates.shape), indices.new_empty(touched),
        u.new_empty(rows, d), v.new_empty(rows, d),
    )  # fmt: skip


def _setup(ctx, inputs, output):
    x, u, v, indices, gates, ctx.activation, ctx.sparse, ctx.implementation = inputs
    ctx.save_for_backward(x, u, v, indices, gates, output[1])
    ctx.set_materialize_grads(False)  # h has no gradient: no zeros in its place


def _backward(ctx, dy, _dh):
    x, u, v, indices, gates, h = ctx.saved_tensors
    wanted = ctx.needs_input_grad[1] or ctx.needs_input_grad[2]
    # Frozen tables get no dense gradient even for a moment: the rows touched are as cheap as it gets.
    compact = ctx.sparse or not wanted
    dx, dgates, rows, du, dv = _rank1_experts_backward(
        dy, x, u, v, indices, gates, h, ctx.activation, compact, ctx.implementation
    )
    if not wanted:
        return dx, None, None, None, dgates, None, None, None
    if compact:
        du, dv = (_sparse_rows(rows, values, table) for values, table in ((du, u), (dv, v)))
    return dx, du, dv, None, dgates, None, None, None


_rank1_experts.register_autograd(_backward, setup_context=_setup)


@torch.library.custom_op("harness::rank1_coefficients", mutates_args=())
def _coefficients(
    x: Tensor, u: Tensor, indices: Tensor, gates: Tensor, activation: str, implementation: str
) -> tuple[Tensor, Tensor]:
    return dispatch.load(__name__, implementation).coefficients(x, u, indices, gates, activation)


@_coefficients.register_fake
def _(x, u, indices, gates, activation, implementation):
    return gates.new_empty(gates.shape), gates.new_empty(gates.shape)


@torch.library.custom_op("harness::rank1_coefficients_backward", mutates_args=())
def _coefficients_backward(
    dc: Tensor, x: Tensor, u: Tensor, indices: Tensor, gates: Tensor, h: Tensor, activation: str, compact: bool,
    implementation: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    module = dispatch.load(__name__, implementation)
    return module.backward_coefficients(dc, x, u, indices, gates, h, activation, compact)


@_coefficients_backward.register_fake
def _(dc, x, u, indices, gates, h, activation, compact, implementation):
    touched = torch.library.get_ctx().new_dynamic_size()
    rows = touched if compact else u.shape[0]
    return x.new_empty(x.shape), gates.new_empty(gates.shape), indices.new_empty(touched), u.new_empty(rows, x.shape[1])


def _setup_coefficients(ctx, inputs, output):
    x, u, indices, gates, ctx.activation, ctx.implementation = inputs
    ctx.save_for_backward(x, u, indices, gates, output[1])
    ctx.set_materialize_grads(False)


def _backward_of_coefficients(ctx, dc, _dh):
    x, u, indices, gates, h = ctx.saved_tensors
    wanted = ctx.needs_input_grad[1]
    dx, dgates, _, du = _coefficients_backward(
        dc, x, u, indices, gates, h, ctx.activation, not wanted, ctx.implementation
    )
    return dx, du if wanted else None, None, dgates, None, None


_coefficients.register_autograd(_backward_of_coefficients, setup_context=_setup_coefficients)


def _sparse_rows(rows: Tensor, values: Tensor, table: Tensor) -> Tensor:
    return torch.sparse_coo_tensor(rows[None], values, table.shape, is_coalesced=True, check_invariants=False)


# Counted as if every slot were active, which is what the reference computes: two products of tokens × slots × d
# forward, four backward. Table gradients of frozen tables are counted too.
@register_flop_formula(torch.ops.harness.rank1_experts)
def _(x_shape, u_shape, v_shape, indices_shape, *_args, **_kwargs) -> int:
    return 4 * indices_shape[0] * indices_shape[1] * x_shape[1]


@register_flop_formula(torch.ops.harness.rank1_experts_backward)
def _(dy_shape, x_shape, u_shape, v_shape, indices_shape, *_args, **_kwargs) -> int:
    return 8 * indices_shape[0] * indices_shape[1] * x_shape[1]


@register_flop_formula(torch.ops.harness.rank1_coefficients)
def _(x_shape, u_shape, indices_shape, *_args, **_kwargs) -> int:
    return 2 * indices_shape[0] * indices_shape[1] * x_shape[1]


@register_flop_formula(torch.ops.harness.rank1_coefficients_backward)
def _(dc_shape, x_shape, u_shape, indices_shape, *_args, **_kwargs) -> int:
    return 4 * indices_shape[0] * indices_shape[1] * x_shape[1]
