"""Ground truth of rank-1 experts in plain torch: gather, then einsum. Forms tokens × slots × d."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def activate(h: Tensor, activation: str) -> Tensor:
    """relu, gelu (exact, by erf), silu, relu2 (squared relu)."""
    if activation == "relu":
        return F.relu(h)
    if activation == "gelu":
        return F.gelu(h)
    if activation == "silu":
        return F.silu(h)
    if activation == "relu2":
        return F.relu(h).square()
    raise ValueError(f"activation {activation!r} is not known: use one of relu, gelu, silu, relu2")


def coefficients(x: Tensor, u: Tensor, indices: Tensor, gates: Tensor, activation: str) -> Tensor:
    h = torch.einsum("td,tsd->ts", x, F.embedding(indices, u))
    return gates * activate(h, activation)


def rank1_experts(
    x: Tensor, u: Tensor, v: Tensor, indices: Tensor, gates: Tensor, activation: str, sparse_gradients: bool = False
) -> Tensor:
    h = torch.einsum("td,tsd->ts", x, F.embedding(indices, u, sparse=sparse_gradients))
    weights = gates * activate(h, activation)
    return torch.einsum("ts,tsd->td", weights, F.embedding(indices, v, sparse=sparse_gradients))
