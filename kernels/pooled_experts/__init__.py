"""Rank-1 experts in pools: a router sent each token to a few pools, inside each pool a few experts were retrieved.

The same sum as `rank1_experts`, done pool by pool: either by gathering expert rows, tokens grouped so that a pool's
table is read while it is in cache, or by a dense product with the whole pool, masked to the retrieved experts. The
dense product does more arithmetic and wins where a pool is small for the experts used of it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels import dispatch
from kernels.mixed import outside_autocast, widened
from kernels.pooled_experts import reference
from kernels.pooled_experts.reference import dense_pools
from kernels.rank1_experts import rank1_experts

__all__ = ["DENSE_BELOW", "pooled_experts", "prefers_dense"]

# Experts in a pool per expert retrieved of it, below which the dense product is faster. `python -m kernels.bench`
# measures it again. cpu: forward + backward, d 256. cuda: not measured; 2,500 experts for 12 retrieved,
# from bytes and flops of an H200 (notes/experts.md, section 4).
DENSE_BELOW = {"cpu": 3.0, "cuda": 200.0}


@outside_autocast
def pooled_experts(
    x: Tensor, u: Tensor, v: Tensor, pools: Tensor, indices: Tensor, gates: Tensor, activation: str
) -> Tensor:
    """Σ over pools and slots of gates · act(u[pool, index]ᵀ x) · v[pool, index]: `[tokens, d]`.

    x `[tokens, d]`; u, v `[n_pools, experts, d]`; pools int64 `[tokens, visits]`; indices int64 `[tokens, visits, k]`
    in [0, experts), within the pool of the visit; gates `[tokens, visits, k]`; activation as in `rank1_experts`.
    Differentiable in x, u, v and gates.
    """
    experts, d = u.shape[1:]
    wanted = x.dtype
    x, u, v, gates = widened(x, u, v, gates)
    if dispatch.choose("pooled_experts", x.device.type, x.dtype) == "reference":
        return reference.pooled_experts(x, u, v, pools, indices, gates, activation).to(wanted)
    if prefers_dense(experts, indices.shape[2], x.device.type):
        return dense_pools(x, u, v, pools, indices, gates, activation).to(wanted)
    visits = pools.shape[1]
    order = pools.flatten().argsort(stable=True)  # visits, pool by pool
    flat = (pools[..., None] * experts + indices).flatten(0, 1)
    y = rank1_experts(
        x.index_select(0, order // visits),
        u.reshape(-1, d),
        v.reshape(-1, d),
        flat.index_select(0, order),
        gates.flatten(0, 1).index_select(0, order),
        activation,
    )
    back = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
    return y.index_select(0, back).view(-1, visits, d).sum(1).to(wanted)


def prefers_dense(experts: int, k: int, device: str) -> bool:
    """Whether a pool of so many experts, k of them retrieved, is multiplied whole."""
    return experts < DENSE_BELOW.get(device, 0.0) * k
