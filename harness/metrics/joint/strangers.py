"""The null of the headline: units that never fire together with A, put in B's place where A and B fire.

A stranger C stands at B's site, writes as strongly as B does in that context, and is chosen, among many drawn, for what
C alone does to the next token (as much as B alone) and for the angle between what it and A write (as B's). So what is
asked, whether units that fire together mean more together, is all that differs. Random write directions (floor.py) are
no such null: real writes lie where later layers listen. [U: ours]

Excess grows with the effect of either unit, so what the matching leaves is divided out: figures are taken per bit that
B, or C, says alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from harness.metrics.joint.excess import RESOLUTION, above_floor
from harness.metrics.joint.pairs import Chosen, Fired, together_at

if TYPE_CHECKING:
    from harness.systems.system import Site

DRAWN, KEPT = 24, 3  # strangers tried for a pair, and compared with
PROBED = 8  # contexts of a pair on which they are tried
_LEAST = 5  # firings on dev that a stranger needs
EFFECT, ANGLE = 2.0, 0.15  # farthest apart that counts as matched: a factor; a difference of cosines


def drawn(
    chosen: Chosen, dev: Mapping[Site, Fired], test: Mapping[Site, Fired], rng: np.random.Generator
) -> np.ndarray:
    """For each pair up to DRAWN units of B's site that fire, and never on a token with A; −1 where there are fewer.
    `[pairs, DRAWN]`"""
    found = np.full((len(chosen.units), DRAWN), -1, np.int64)
    of_a, of_b = (dev[chosen.stratum.a], test[chosen.stratum.a]), (dev[chosen.stratum.b], test[chosen.stratum.b])
    often = np.bincount(of_b[0].unit, minlength=of_b[0].n_units) >= _LEAST
    for row, (a, b) in enumerate(chosen.units):
        free = often.copy()
        free[b] = False
        if chosen.stratum.within:
            free[a] = False
        for one, other in zip(of_a, of_b, strict=True):
            free[together_at(one, other, int(a))] = False
        candidates = np.flatnonzero(free)
        taken = rng.choice(candidates, min(DRAWN, len(candidates)), replace=False)
        found[row, : len(taken)] = taken
    return found


def matched(
    effect_b: np.ndarray, cosine_b: np.ndarray, effects: np.ndarray, cosines: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Which strangers are most like B: places `[pairs, KEPT]`, and whether all of them are near enough `[pairs]`.

    effect_b, cosine_b `[pairs]`: what B alone does, in bits, and its angle to A; effects, cosines `[pairs, drawn]` of
    the strangers, nan where there is none.
    """
    apart = np.abs(np.log((effects + RESOLUTION) / (effect_b + RESOLUTION)[:, None]))
    turned = np.abs(cosines - cosine_b[:, None])
    distance = np.where(np.isnan(effects), np.inf, apart / np.log(EFFECT) + turned / ANGLE)
    places = np.argsort(distance, axis=1, kind="stable")[:, :KEPT]
    rows = np.arange(len(places))[:, None]
    near = (apart[rows, places] <= np.log(EFFECT)) & (turned[rows, places] <= ANGLE)
    return places, near.all(1) & np.isfinite(distance[rows, places]).all(1)


def log_ratios(real: np.ndarray, effect_b: np.ndarray, strangers: np.ndarray, effects: np.ndarray) -> np.ndarray:
    """log of (figure per bit of B alone) over the geometric mean of (figure per bit of C alone).

    real, effect_b `[..., pairs]`, strangers, effects `[..., pairs, KEPT]`, all means over a pair's contexts.
    """
    own = np.log(real + RESOLUTION) - np.log(effect_b + RESOLUTION)
    others = np.log(strangers + RESOLUTION) - np.log(effects + RESOLUTION)
    return own - others.mean(-1)


def above_strangers(real: np.ndarray, effect_b: np.ndarray, strangers: np.ndarray, effects: np.ndarray) -> np.ndarray:
    """One-sided p-values `[pairs]`: is B, to A, just one more stranger? `above_floor` with strangers for random
    directions, each figure per bit that the unit says alone."""
    own = real / (effect_b + RESOLUTION)
    others = strangers / (effects + RESOLUTION)
    return above_floor(own, others)


def trimmed_mean(values: np.ndarray, cut: float = 0.1) -> np.ndarray:
    """Mean of the middle 80% over the last axis: a few pairs cannot carry it. nan entries are left out."""
    ordered = np.sort(values, axis=-1)  # nan last
    n = np.isfinite(values).sum(-1)
    place = np.arange(values.shape[-1])
    low = np.floor(cut * n)[..., None]
    inside = (place >= low) & (place < n[..., None] - low)
    return np.where(inside, ordered, 0.0).sum(-1) / np.maximum(inside.sum(-1), 1)
