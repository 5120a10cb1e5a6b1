"""How much is looked at, and what is said where that was too little. Apart: reading options imports no estimator."""

from __future__ import annotations

import math

from pydantic import Field, model_validator

from harness.base.settings import Strict

VERSION = 5


class SupportingOptions(Strict):
    """What the codes alone show of a system: pairs and groups drawn on dev, figures on the stored codes of eval."""

    pairs: int = Field(default=120, ge=2, description="Pairs drawn in proportion to co-activation, over all sites.")
    groups: int = Field(default=120, ge=2, description="Groups drawn from units that fire on one token.")
    group_size: int = Field(default=4, ge=2, le=10, description="Units of a group.")
    least: int = Field(default=10, ge=1, description="Meetings below which a pair is pruned and no pair is drawn.")
    most: float = Field(default=0.5, gt=0, le=1, description="Units that fire on more than this share are left out.")
    bins: int = Field(default=3, ge=1, description="Quantile bins of a unit's values.")
    draws: int = Field(default=10, ge=2, description="Draws of the null that information stands against.")
    outcomes: int = Field(default=64, ge=2, description="Next tokens told apart: the commonest, and all others as one.")
    contexts: int = Field(default=1024, ge=16, description="Contexts of a pair, half of them of neither, at most.")
    rank: int = Field(default=8, ge=1, description="Of the factorisation machine.")
    epochs: int = Field(default=12, ge=1, description="Of a readout, at most.")
    dev_sequences: int = Field(default=128, ge=1, description="Dev sequences that readouts are fitted on (at most).")


class Options(Strict):
    """How much is tested. Pairs are drawn on dev, contexts on eval."""

    pairs: int = Field(default=200, ge=2, description="Pairs of a system, shared out evenly over layers and kinds.")
    contexts: int = Field(default=100, ge=2, description="Contexts of every pair, the same number in every system.")
    active: int = Field(default=16, ge=2, description="Strongest units of a token at a site that count as firing.")
    dev_sequences: int = Field(default=128, ge=1, description="Dev sequences on which pairs are drawn (at most).")
    draws: int = Field(default=3, ge=3, description="Pairs of random directions for the floor of each pair.")
    shuffled_contexts: int = Field(default=25, ge=1, description="Contexts of each pair with one unit shuffled.")
    low: float = Field(default=0.1, ge=0, lt=1, description="Quantile of a unit's values that is its low magnitude.")
    high: float = Field(default=0.9, gt=0, le=1, description="And its high one.")
    least_pairs: int = Field(default=10, ge=2, description="With fewer testable pairs a figure is underpowered.")
    supporting: SupportingOptions = SupportingOptions()
    seed: int = 0

    @model_validator(mode="after")
    def _low_below_high(self) -> Options:
        if not self.low < self.high:
            raise ValueError(f"low = {self.low} must be below high = {self.high}")
        return self


def needed(contexts: int, best: int, tokens: int) -> str:
    """What a system with too little evaluation text would need, said where its figure would stand."""
    if best == 0:
        return f"underpowered: no pair of units fired together on {tokens:,} tokens"
    more = math.ceil(tokens * contexts / best)
    return f"underpowered: pairs have at most {best} contexts of {contexts} on {tokens:,} tokens; about {more:,} needed"
