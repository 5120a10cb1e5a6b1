"""Joint structure: do pairs of units that fire together mean more together than apart?

Primary: edits in the same context (excess.py, edits.py). In contexts where both units fire, the distribution of the
next token is read with both, one, the other and neither; how far the effects are from adding up is the *excess*, read
against the *floor* of random write directions of equal norm (floor.py), and beside the *conjunction*.

Systems are matched on strength: a unit fires where it is among the `active` strongest of its token at its site.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pydantic import Field

from harness.base.settings import Strict
from harness.metrics.joint.supporting_options import SupportingOptions
from harness.metrics.metric import register

if TYPE_CHECKING:
    from harness.systems.evaluation import Evaluation
    from harness.tables.measurement import Measurement

VERSION = 4


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


def measure(evaluation: Evaluation, options: Options) -> list[Measurement]:
    """Means over pairs within a layer, last layer apart (its excess is near zero by construction: only a norm and the
    head follow), over equally many pairs in every layer; intervals resample documents.

    - excess (bits), excess_share = Σ excess / Σ KL(p11 ‖ p00); floor, floor_share, conjunction_floor: with random
      directions; excess_above_floor = excess − floor; pairs_above_floor: share of pairs whose excess exceeds theirs
      at 5% (excess.above_floor): 5% of pairs that combine nothing do;
    - conjunction (bits), novel_top: share of contexts whose likeliest token with both is likeliest in no other state;
    - magnitude_share, magnitude_floor_share: excess share of the step from each unit's low quantile to its high one;
    - controls: excess_share_rotated and conjunction_rotated (the pair turned at random in its own plane),
      excess_share_shuffled and its floor (B's values permuted over tokens);
    - excess_share_across, floor_share_across: A in one layer, B in the next; excess_share_layer<i> and
      floor_share_layer<i>: within each layer;
    - testable: share of the co-activations on dev that pairs with enough contexts account for; pairs: how many ran.

    Then what the codes alone show (supporting.py), which decides nothing.

    A figure of fewer than `least_pairs` pairs or 2 documents is nan, with what would be needed. The ten strongest pairs
    with contexts go to pairs.json, pairs.md and pairs.html in the artifacts.
    """
    import numpy as np

    from harness.metrics.joint import primary
    from harness.metrics.joint.supporting import supporting

    if not options.low < options.high:
        from harness.base.errors import BadInput

        raise BadInput(f"joint: low = {options.low} must be below high = {options.high}")
    rng = np.random.default_rng(options.seed)
    return [
        *primary.measure(evaluation, options, rng),
        *supporting(evaluation, options.supporting, options.active, rng),
    ]


def needed(contexts: int, best: int, tokens: int) -> str:
    """What a system with too little evaluation text would need, said where its figure would stand."""
    if best == 0:
        return f"underpowered: no pair of units fired together on {tokens:,} tokens"
    more = math.ceil(tokens * contexts / best)
    return f"underpowered: pairs have at most {best} contexts of {contexts} on {tokens:,} tokens; about {more:,} needed"


register("joint", measure, Options, VERSION)
