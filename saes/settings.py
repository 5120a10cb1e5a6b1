"""How dictionaries are trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from saes.activations import ActivationStream, Collect

DictionaryObjective = Literal["reconstruction", "end_to_end"]


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """How dictionaries are trained; the same for all that share a pass. Raises ValueError on values that cannot be."""

    objective: DictionaryObjective = field(
        default="reconstruction",
        metadata={"doc": "reconstruction, or end_to_end: KL of the native model and the one with the dictionaries in."},
    )
    train_tokens: int = field(default=1_000_000, metadata={"doc": "Tokens of activations that each dictionary sees."})
    batch_tokens: int = field(default=2048, metadata={"doc": "Tokens in a batch."})
    buffer_tokens: int = field(default=32_768, metadata={"doc": "Tokens in memory, among which batches are shuffled."})
    warmup_share: float = field(default=0.05, metadata={"doc": "Share of the tokens while the learning rate rises."})
    decay_share: float = field(default=0.2, metadata={"doc": "Share of the tokens, the last, while it falls to 0."})
    seed: int = field(default=0, metadata={"doc": "Seeds initial weights and the order of tokens."})
    log_every: int = field(default=10, metadata={"doc": "Batches between two rows of the curve."})
    checkpoint_every: int = field(default=100, metadata={"doc": "Batches between two checkpoints."})

    def __post_init__(self) -> None:
        if self.objective not in get_args(DictionaryObjective):
            raise ValueError(f"objective {self.objective!r}: must be one of {', '.join(get_args(DictionaryObjective))}")
        for name in ("train_tokens", "batch_tokens", "log_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)}: must be at least 1")
        if self.buffer_tokens < self.batch_tokens:
            raise ValueError(f"buffer_tokens {self.buffer_tokens}: must be at least batch_tokens {self.batch_tokens}")
        for name in ("warmup_share", "decay_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} {getattr(self, name)}: must be between 0 and 1")

    def stream(self, collect: Collect, n_sequences: int, sequence_tokens: int) -> ActivationStream:
        """The stream of activations that these settings ask for."""
        return ActivationStream(collect, n_sequences, sequence_tokens, self.seed, self.batch_tokens, self.buffer_tokens)

    def lr_factor(self, progress: float) -> float:
        """Share of the peak learning rate after `progress` (0 to 1) of the tokens: linear up, flat, linear to 0. A
        batch gets that of its middle, so none is trained on with a rate of 0."""
        up = progress / self.warmup_share if self.warmup_share else 1.0
        down = (1.0 - progress) / self.decay_share if self.decay_share else 1.0
        return max(0.0, min(1.0, up, down))
