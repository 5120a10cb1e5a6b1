"""Joint structure: do pairs of units that fire together mean more together than apart?

Primary: edits in the same context (excess.py, passes.py). In contexts where both units fire, the distribution of the
next token is read with both, one, the other and neither; how far the effects are from adding up is the *excess*. It is
read against the same with *strangers* in B's place (strangers.py), beside the *floor* of random write directions of
equal norm (floor.py) and the *conjunction*.

Systems are matched on strength: a unit fires where it is among the `active` strongest of its token at its site.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.metrics.joint.options import VERSION, Options
from harness.metrics.metric import register

if TYPE_CHECKING:
    from harness.systems.evaluation import Evaluation
    from harness.tables.measurement import Measurement


def measure(evaluation: Evaluation, options: Options) -> list[Measurement]:
    """Over pairs within a layer, last layer apart (its excess is near zero by construction: only a norm and the head
    follow), over equally many pairs in every layer; intervals resample documents and pairs together.

    The headline, against strangers (strangers.py), over the pairs that have some (pairs_with_strangers):

    - together_over_strangers: the excess of pairs that fire together over that of strangers, per bit that B, or the
      stranger, says alone; trimmed mean of log ratios over pairs, as a ratio; 1: they combine no more than strangers
      do. pairs_above_strangers: share of pairs above at 5%;
    - in all layers: conjunction_over_strangers and pairs_conjoined likewise; meaning_kept: of what A says alone, the
      share that it still says with B, and _strangers: with a stranger in B's place (medians over pairs); pairs_code:
      share of pairs that are conjoined and whose meaning is lost (meaning.py).

    Means over pairs, which a few of them can carry:

    - excess (bits), excess_share = Σ excess / Σ KL(p11 ‖ p00); floor, floor_share, conjunction_floor: with random
      directions; excess_above_floor = excess − floor; pairs_above_floor: share of pairs whose excess exceeds theirs
      at 5% (excess.above_floor): 5% of pairs that combine nothing do, if they write in no direction of their own;
      excess_over_floor: the trimmed mean of log ratios, as a ratio;
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

    rng = np.random.default_rng(options.seed)
    return [
        *primary.measure(evaluation, options, rng),
        *supporting(evaluation, options.supporting, options.active, rng),
    ]


register("joint", measure, Options, VERSION)
