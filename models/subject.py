"""What the harness asks of a language model: our own trunks and other people's answer alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from models.feed_forward import FeedForward


class Subject(Protocol):
    """A causal language model of blocks, each of which adds a feed-forward layer's output to the residual stream.

    carries: whether a layer leaves something for later ones beside the residual stream (a shared routing).
    """

    @property
    def config(self) -> Any: ...

    @property
    def carries(self) -> bool: ...

    @property
    def device(self) -> torch.device: ...

    def blocks(self) -> Sequence[nn.Module]:
        """From the first to the last; the output of each is the residual stream after it."""
        ...

    def feed_forwards(self) -> list[FeedForward]:
        """One of each block; its output is what is added to the residual stream."""
        ...

    def final_norm(self) -> nn.Module: ...

    def unembedding(self) -> Tensor:
        """`[vocabulary, d_model]`: what the output head reads of the normed stream, before any capping of logits."""
        ...

    def unembed(self, x: Tensor) -> Tensor:
        """Logits `[..., vocabulary]` of the residual stream after the last block, x `[..., d_model]`."""
        ...
