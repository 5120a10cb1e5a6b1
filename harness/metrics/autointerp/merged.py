"""The union test: what a score falls to when the meanings of several units are put together.

A unit is merged with others of its site that fire about as often, and explained and scored as one. If units already
were unions of many meanings, one more would hardly matter; where each says one thing, the score falls. So the curve
over 1, 2 and 4 gives scores a scale: how many units of the system, put together, read as badly as a random direction
does. [U: ours]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from harness.metrics.autointerp.collect import WantedContexts, collect
from harness.metrics.autointerp.contexts import UnitContexts
from harness.metrics.autointerp.firings import Firings, Text
from harness.metrics.autointerp.sampling import Drawn

SIZES = (2, 4)
_STREAM = 5  # of a unit's generator
_NEAREST = 4  # partners are drawn among so many times those wanted, the nearest in firing rate
MOST = 64.0  # merged units, beyond which the curve says nothing


def merged(
    units: Sequence[Drawn],
    size: int,
    text: Text,
    wanted: WantedContexts,
    alike: Callable[[Firings, int], list[np.ndarray]],
    seed: int,
) -> list[UnitContexts | None]:
    """Every unit with `size` − 1 others, None where there are too few; strengths are shares of each unit's largest.
    `alike`: tokens of a unit's neighbours, where near misses are drawn from."""
    found: list[UnitContexts | None] = []
    for drawn in units:
        firings, column = drawn.firings, drawn.column
        generator = firings.generator(column, seed + _STREAM + size)
        apart = np.abs(np.log(firings.counts) - np.log(firings.counts[column]))
        apart[column] = np.inf
        near = np.argsort(apart, kind="stable")[: min(_NEAREST * (size - 1), len(apart) - 1)]
        if len(near) < size - 1:
            found.append(None)
            continue
        columns = [column, *generator.choice(near, size - 1, replace=False)]
        activity = np.zeros(len(text), np.float32)
        for one in columns:
            tokens, strengths = firings.of_column(int(one))
            activity[tokens] = np.maximum(activity[tokens], strengths / strengths.max())
        tokens = np.flatnonzero(activity)
        near_misses = [silent for one in columns for silent in alike(firings, int(one))]
        where = f"{size} merged at {firings.site}"
        found.append(
            collect(text, where, drawn.contexts.unit, tokens, activity[tokens], near_misses, wanted, generator)
        )
    return found


def as_merged(score: np.ndarray, curve: np.ndarray, other: np.ndarray) -> np.ndarray:
    """How many merged units read as `other` does: `score` falls to `curve` `[sizes, ...]` at SIZES, log-linear in their
    number by least squares; between 1 and MOST, and MOST where the score does not fall. All of one shape."""
    x = np.log([1, *SIZES])
    y = np.stack([score, *curve])  # [1 + sizes, ...]
    centred = x - x.mean()
    slope = np.tensordot(centred, y - y.mean(0), axes=1) / (centred**2).sum()
    falls = slope < 0
    number = np.exp(np.clip((other - y.mean(0)) / np.where(falls, slope, -1) + x.mean(), 0, np.log(MOST)))
    return np.where(falls, number, MOST)
