"""What a score is worth: the same protocol where there is nothing to find, or where the answer is wrong.

- constant: an explanation that says the unit always fires;
- another_unit: the explanation of another unit of the sample;
- shuffled: the unit's activations moved to random tokens, explained and scored anew;
- random_dictionary: a unit of a dictionary of random directions, as wide as the system's and at the same L0 on every
  token (random_dictionary.py);
- merged_2, merged_4: the unit put together with one or three others that fire about as often (merged.py).

The first three measure the judge and the protocol. The fourth measures the system, and is what a score is read
against: random directions of a layer say a good deal about tokens. The fifth says what a score is worth: how far it
falls when meanings are put together. The same system on an untrained subject is a row of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.metrics.autointerp.collect import WantedContexts, collect
from harness.metrics.autointerp.contexts import Context, Explanation, UnitContexts
from harness.metrics.autointerp.firings import Text
from harness.metrics.autointerp.sampling import Drawn

RANDOM, MERGED = "random_dictionary", ("merged_2", "merged_4")
CONTROLS = ("constant", "another_unit", "shuffled", RANDOM, *MERGED)
# A score must be clearly above these to say anything of the system.
OF_NOTHING = ("constant", "another_unit", "shuffled", RANDOM)
_SHUFFLED = 1  # stream of a unit's generator; 0 draws its contexts


def constant() -> Explanation:
    return Explanation("The unit fires on every token.", "constant", _always)


def _always(context: Context) -> list[float]:
    return [1.0] * len(context.tokens)


def of_another(explanations: Sequence[Explanation], generator: np.random.Generator) -> list[Explanation]:
    """Every explanation once, none at its own place: along one random cycle. A single one stays."""
    order = generator.permutation(len(explanations))
    found = list(explanations)
    for here, there in zip(order, np.roll(order, 1), strict=True):
        found[here] = explanations[there]
    return found


def shuffled(units: Sequence[Drawn], text: Text, wanted: WantedContexts, seed: int) -> list[UnitContexts | None]:
    """None where the moved firings leave too few contexts."""
    found = []
    for drawn in units:
        generator = drawn.firings.generator(drawn.column, seed + _SHUFFLED)
        _, strengths = drawn.firings.of_column(drawn.column)
        tokens = np.sort(generator.choice(len(text), len(strengths), replace=False))
        moved = generator.permutation(strengths)
        found.append(_collected("shuffled", drawn, text, tokens, moved, wanted, generator))
    return found


def _collected(
    name: str,
    drawn: Drawn,
    text: Text,
    tokens: np.ndarray,
    strengths: np.ndarray,
    wanted: WantedContexts,
    generator: np.random.Generator,
) -> UnitContexts | None:
    """No neighbours: moved firings are like nobody's."""
    where = f"{name} at {drawn.firings.site}"
    return collect(text, where, drawn.contexts.unit, tokens, strengths, (), wanted, generator)
