"""Transcoders: read an MLP's input, predict its output (Dunefsky et al. 2024, arXiv 2406.11944), with any selection."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

import torch

from saes.registry import DICTIONARIES, register
from saes.training_dictionary import DictionaryConfig, Shape, TrainingModule


@dataclass(frozen=True, kw_only=True)
class TranscoderConfig(DictionaryConfig):
    """A dictionary of the named selection that learns target = MLP(x) from x; it does not subtract its decoder bias
    from its input. Options that are left at their default take the selection's own."""

    selection: str = field(
        default="topk", metadata={"doc": "How latents are selected: a dictionary kind (topk, relu, mutual_choice, …)."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.selecting()

    def selecting(self) -> DictionaryConfig:
        """The config of the selection."""
        cls = DICTIONARIES.named(self.selection)
        if issubclass(cls, TranscoderConfig) or ":" in self.selection:
            raise ValueError(f"selection {self.selection!r}: not a way to select latents (nearest: 'topk')")
        given = {option.name: getattr(self, option.name) for option in fields(DictionaryConfig)}
        defaults = {option.name: option.default for option in fields(DictionaryConfig)}
        return cls(**{name: value for name, value in given.items() if value != defaults[name]})

    @property
    def transcodes(self) -> bool:
        return True

    def modules(self) -> tuple[str, ...]:
        return (*super().modules(), *self.selecting().modules())

    def build(self, shape: Shape, generator: torch.Generator) -> TrainingModule:
        return self.selecting().build(replace(shape, transcoder=True), generator)


@dataclass(frozen=True, kw_only=True)
class SkipTranscoderConfig(TranscoderConfig):
    """A transcoder with a linear map beside it, t̂ = z W_dec + W_skip x + b_dec, W_skip 0 at the start (Paulo et al.
    2025, arXiv 2501.18823)."""

    def build(self, shape: Shape, generator: torch.Generator) -> TrainingModule:
        return super().build(replace(shape, skip=True), generator)


register("transcoder", TranscoderConfig)
register("skip_transcoder", SkipTranscoderConfig)
