"""A feed-forward module of somebody else's model in our slot: what every such layer has in common."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from models.feed_forward import FeedForward


class Wrapped(FeedForward):
    """mlp: the module. It stands in the model where it stood, inside this layer, and runs as it did unless somebody
    looks in."""

    def __init__(self, mlp: nn.Module, layer_index: int) -> None:
        super().__init__(cast(Any, None), layer_index, None)
        self.mlp = mlp

    def forward(self, x: Tensor, position_ids: Tensor | None = None) -> Tensor:
        """As in `FeedForward`. The model's own blocks do not tell positions: they are counted from 0."""
        if position_ids is None:
            position_ids = torch.arange(x.shape[1], device=x.device)[None]
        return super().forward(x, position_ids)

    def fused(self, x: Tensor) -> Tensor:
        return self.mlp(x[None])[0]
