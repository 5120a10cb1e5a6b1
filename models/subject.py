"""What the harness asks of a language model: our own trunks and other people's models answer alike."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from models.feed_forward import FeedForward


class Subject(nn.Module, ABC):
    """A causal language model of blocks, each of which adds a feed-forward layer's output to the residual stream.

    Called with `input_ids` `[batch, T]` it gives transformers' output, with `logits`. config: transformers' names
    (`hidden_size`, `vocab_size`, ...).
    """

    config: Any
    device: torch.device  # pyright: ignore[reportUninitializedInstanceVariable] (a property, in transformers too)

    @property
    @abstractmethod
    def carries(self) -> bool:
        """Whether a layer leaves something for later ones beside the residual stream (a shared routing)."""

    @abstractmethod
    def blocks(self) -> Sequence[nn.Module]:
        """From the first to the last; the output of each is the residual stream after it."""

    @abstractmethod
    def feed_forwards(self) -> list[FeedForward]:
        """One of each block; its output is what is added to the residual stream."""

    @abstractmethod
    def final_norm(self) -> nn.Module:
        """What the output head reads through."""

    @abstractmethod
    def unembedding(self) -> Tensor:
        """`[vocabulary, d_model]`: what the output head reads of the normed stream, before any capping of logits."""

    @abstractmethod
    def unembed(self, x: Tensor) -> Tensor:
        """Logits `[..., vocabulary]` of the residual stream after the last block, x `[..., d_model]`."""

    @abstractmethod
    def active_parameters(self) -> int:
        """Parameters that one token touches."""

    @abstractmethod
    def forward_flops_per_token(self, sequence_length: int) -> int:
        """Forward FLOPs for one token of a sequence of this length, in matrix products (a multiply-add is 2)."""
