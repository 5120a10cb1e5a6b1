"""Ground truth of pooled experts: one flat table, gathered. And the dense product, which is plain torch everywhere."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.rank1_experts.reference import activate, rank1_experts


def pooled_experts(
    x: Tensor, u: Tensor, v: Tensor, pools: Tensor, indices: Tensor, gates: Tensor, activation: str
) -> Tensor:
    experts, d = u.shape[1:]
    flat = (pools[..., None] * experts + indices).flatten(1)
    return rank1_experts(x, u.reshape(-1, d), v.reshape(-1, d), flat, gates.flatten(1), activation)


def dense_pools(
    x: Tensor, u: Tensor, v: Tensor, pools: Tensor, indices: Tensor, gates: Tensor, activation: str
) -> Tensor:
    """Every pool multiplied whole with its visitors, masked by gates that are zero where nothing was retrieved."""
    n_pools, experts, _ = u.shape
    visits = pools.shape[1]
    order = pools.flatten().argsort(stable=True)  # visits, pool by pool
    lengths = torch.bincount(pools.flatten(), minlength=n_pools).tolist()
    spread = gates.new_zeros(len(order), experts).scatter_add(1, indices.flatten(0, 1), gates.flatten(0, 1))
    # Split and unbind, not index: the gradient of u[pool] is a whole table of zeros, once for every pool.
    xs, masks = (t.split(lengths) for t in (x.index_select(0, order // visits), spread.index_select(0, order)))
    parts = [
        (mask * activate(here @ down.T, activation)) @ up
        for here, mask, down, up in zip(xs, masks, u.unbind(), v.unbind(), strict=True)
    ]
    back = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
    return torch.cat(parts).index_select(0, back).view(-1, visits, x.shape[1]).sum(1)
