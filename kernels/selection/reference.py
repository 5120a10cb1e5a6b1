"""Ground truth of the selections in plain torch: sort everything, take the front. Ties go to the lower index."""

from __future__ import annotations

import torch
from torch import Tensor


def topk(a: Tensor, k: int) -> tuple[Tensor, Tensor]:
    values, indices = a.sort(dim=-1, descending=True, stable=True)
    return values[:, :k], indices[:, :k]


def batch_topk(a: Tensor, m: int) -> tuple[Tensor, Tensor, Tensor]:
    order = a.flatten().sort(descending=True, stable=True).indices[:m]
    return _as_rows(torch.zeros_like(a, dtype=torch.bool).flatten().index_fill(0, order, True).view_as(a), a)


def column_topk(a: Tensor, m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    order = a.sort(dim=0, descending=True, stable=True).indices
    rank = torch.empty_like(order).scatter_(0, order, torch.arange(a.shape[0])[:, None].expand_as(order).to(a.device))
    return _as_rows(rank < m, a)


def positive(a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return _as_rows(~(a <= 0), a)


def _as_rows(chosen: Tensor, a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    rows, columns = chosen.nonzero(as_tuple=True)
    lengths = chosen.sum(1)
    return torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]), columns, a[rows, columns]
