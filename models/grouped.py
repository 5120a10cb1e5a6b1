"""Products in which every row of x has one of several matrices: rows sorted, one product per matrix."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TokenGroups:
    """Rows sorted by group. order `[rows]`: which row stands where; back: its inverse; lengths: rows of each group."""

    order: Tensor
    back: Tensor
    lengths: list[int]

    @staticmethod
    def of(group: Tensor, n_groups: int) -> TokenGroups:
        """group int64 `[rows]` in [0, n_groups)."""
        order = group.argsort(stable=True)
        back = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
        return TokenGroups(order, back, torch.bincount(group, minlength=n_groups).tolist())

    def split(self, rows: Tensor) -> tuple[Tensor, ...]:
        """The rows of every group (of a tensor `[rows, ...]` in the original order)."""
        return rows.index_select(0, self.order).split(self.lengths)

    def join(self, parts: list[Tensor]) -> Tensor:
        """The inverse of `split`."""
        return torch.cat(parts).index_select(0, self.back)


def grouped_product(rows: Tensor, group: Tensor, matrices: Tensor) -> Tensor:
    """rows `[rows, a]`, each times its matrix: matrices `[groups, a, b]`, group int64 `[rows]` -> `[rows, b]`."""
    groups = TokenGroups.of(group, len(matrices))
    parts = zip(groups.split(rows), matrices.unbind(), strict=True)
    return groups.join([some @ matrix for some, matrix in parts])
