"""Product-key search: the k best of n² experts by looking at 2n sub-keys (arXiv 1907.05242; PEER, arXiv 2407.04153)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from kernels import dispatch
from kernels.mixed import outside_autocast, widened

__all__ = ["search"]

# Sub-keys up to which backward multiplies with all of them on a CPU: little arithmetic, and as matrices (256 tokens, 16
# sub-keys, 12 chosen: 12 times as fast; from 64 on no faster).
DENSE_UP_TO = 32


@outside_autocast
def search(q1: Tensor, q2: Tensor, keys1: Tensor, keys2: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of the n² sums q1·keys1[i] + q2·keys2[j]: (scores, indices) `[tokens, heads, k]`, descending.

    q1, q2 `[tokens, heads, d_key]`; keys1, keys2 `[heads, n, d_key]`, or `[1, n, d_key]` where heads share them.
    indices int64 = i · n + j. Exact: the best k of each half are enough, and of their sums only those with
    (a + 1)(b + 1) <= k, a and b the ranks in the halves. Equal scores of a half go to the lower i (or j), and equal
    sums of those to the lower index. Differentiable in queries and keys through the scores.
    Chosen in the widest type of the operands; scores come back in that of q1. Raises ValueError unless 1 <= k <= n².
    """
    heads, n = q1.shape[1], keys1.shape[1]
    if not 1 <= k <= n * n:
        raise ValueError(f"k={k} is outside 1..{n * n}, the pairs of {n} sub-keys")
    if keys1.shape != keys2.shape or keys1.shape[0] not in (1, heads):
        raise ValueError(
            f"keys have shapes {tuple(keys1.shape)} and {tuple(keys2.shape)}: both must be [1 or {heads}, n, d_key]"
        )
    wanted = q1.dtype
    q1, q2, keys1, keys2 = widened(q1, q2, keys1, keys2)
    implementation = dispatch.choose("product_keys", q1.device.type, q1.dtype)
    if implementation == "reference":
        from kernels.product_keys import reference

        scores, indices = reference.search(q1, q2, keys1, keys2, k)
    else:
        scores, indices = _search(q1, q2, keys1, keys2, k, implementation)
    return scores.to(wanted), indices


@torch.library.custom_op("harness::product_keys", mutates_args=())
def _search(q1: Tensor, q2: Tensor, keys1: Tensor, keys2: Tensor, k: int, implementation: str) -> tuple[Tensor, Tensor]:
    tokens, heads, _ = q1.shape
    n = keys1.shape[1]
    scores, pairs = dispatch.load(__name__, implementation).best(
        _half(q1, keys1).reshape(-1, n), _half(q2, keys2).reshape(-1, n), k
    )
    # [heads, tokens, k] -> [tokens, heads, k]
    return tuple(out.view(heads, tokens, k).transpose(0, 1).contiguous() for out in (scores, pairs))  # type: ignore


@_search.register_fake
def _(q1, q2, keys1, keys2, k, implementation):
    shape = (*q1.shape[:2], k)
    return q1.new_empty(shape), q1.new_empty(shape, dtype=torch.long)


@torch.library.custom_op("harness::product_keys_backward", mutates_args=())
def _search_backward(
    dscores: Tensor, pairs: Tensor, q1: Tensor, q2: Tensor, keys1: Tensor, keys2: Tensor, implementation: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    tokens, heads, k = pairs.shape
    n = keys1.shape[1]
    if implementation == "cpu" and n <= DENSE_UP_TO:
        dq1, dkeys1 = _dense_gradients(dscores, pairs // n, q1, keys1)
        dq2, dkeys2 = _dense_gradients(dscores, pairs % n, q2, keys2)
        return dq1, dq2, dkeys1, dkeys2
    module = dispatch.load("kernels.sparse_dictionary", implementation)
    indptr = torch.arange(tokens * heads + 1, device=pairs.device) * k
    weights = dscores.reshape(-1).contiguous()
    gradients = []
    for q, keys, ids in ((q1, keys1, pairs // n), (q2, keys2, pairs % n)):
        if keys.shape[0] > 1:  # a head's own keys: one long table
            ids = ids + torch.arange(heads, device=ids.device)[:, None] * n
        table, ids = keys.reshape(-1, keys.shape[2]), ids.reshape(-1)
        gradients.append(module.weighted_rows(indptr, ids, weights, table).view(q.shape))
        flat = q.reshape(-1, q.shape[2]).contiguous()
        gradients.append(module.table_gradient(indptr, ids, weights, flat, len(table)).view(keys.shape))
    dq1, dkeys1, dq2, dkeys2 = gradients
    return dq1, dq2, dkeys1, dkeys2


def _dense_gradients(dscores: Tensor, ids: Tensor, q: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """(dq, dkeys) of one half by way of all its scores; dscores, ids `[tokens, heads, k]`."""
    of_half = dscores.new_zeros(*ids.shape[:2], keys.shape[1]).scatter_add_(2, ids, dscores).transpose(0, 1)
    dq = torch.matmul(of_half, keys).transpose(0, 1).contiguous()
    if keys.shape[0] == 1:  # shared by the heads
        return dq, (of_half.flatten(0, 1).T @ q.transpose(0, 1).flatten(0, 1))[None]
    return dq, torch.matmul(of_half.transpose(1, 2), q.transpose(0, 1))


@_search_backward.register_fake
def _(dscores, pairs, q1, q2, keys1, keys2, implementation):
    return tuple(t.new_empty(t.shape) for t in (q1, q2, keys1, keys2))


def _setup(ctx, inputs, output):
    q1, q2, keys1, keys2, _, ctx.implementation = inputs
    ctx.save_for_backward(output[1], q1, q2, keys1, keys2)


def _gradients(ctx, dscores, _):
    return *_search_backward(dscores, *ctx.saved_tensors, ctx.implementation), None, None


_search.register_autograd(_gradients, setup_context=_setup)


def _half(q: Tensor, keys: Tensor) -> Tensor:
    """Scores of all sub-keys of one half: `[heads, tokens, n]`."""
    return torch.matmul(q.transpose(0, 1), keys.transpose(1, 2))


@register_flop_formula(torch.ops.harness.product_keys)
def _(q1_shape, q2_shape, keys1_shape, *_args, **_kwargs) -> int:
    tokens, heads, d = q1_shape
    return 4 * tokens * heads * d * keys1_shape[1]


@register_flop_formula(torch.ops.harness.product_keys_backward)
def _(dscores_shape, pairs_shape, q1_shape, *_args, **_kwargs) -> int:
    # Two halves, a gradient of queries and one of keys each, at the chosen entries only.
    tokens, heads, k = pairs_shape
    return 8 * tokens * heads * k * q1_shape[2]
