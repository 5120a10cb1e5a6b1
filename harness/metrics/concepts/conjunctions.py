"""Has *bird* a unit of its own, or only dog and cat? For every planted pair of concepts, both ways beside each other.

Both are given their best: a unit of its own is whichever tells the pair best of those that tell it better than they
tell either part (a perfect dog unit scores 0.49 on bird where a third of the dogs are birds, and is no bird unit). The
parts are any two units that tell a part at least as well as the pair, each with the threshold that is best *for the
pair*. Additive pairs have no meaning of their own to have a unit for, so what conjunctions have over them is the
answer; and random directions say what either way finds by chance. [U: ours]
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.metrics.concepts.activity import Activity, Integers
from harness.metrics.concepts.detection import Detection
from harness.metrics.concepts.levels import LEVELS, Levels, levels
from harness.metrics.concepts.pairs import Combination, Switch
from harness.metrics.concepts.predictions import Scores, score_predictions, tokens_reaching
from harness.metrics.concepts.side import VERSION, Means, Side
from harness.tables.measurement import Measurement
from harness.tables.statistics import resampled_sums

PARTNERS = 6  # units tried for each part


@dataclass(frozen=True)
class Whole:
    """A concept that is two others together, by their places among the asked."""

    place: int
    first: int
    second: int


def conjunctions(means: Means, own: Side, random: Side) -> list[Measurement]:
    """By relation of the pair: `<relation>_own`, `<relation>_parts`, `<relation>_own_above_parts`, each also of random
    directions; and `own_above_additive`: how much more own-above-parts is over conjunctions than over additive pairs,
    pairs resampled, also of random directions (whose pairs differ in how common they are) and the difference."""
    wholes = _wholes(means)
    if not wholes:
        return []
    over = {kind: np.array([one.place for one in of_kind]) for kind, of_kind in wholes.items()}
    every = [one for of_kind in wholes.values() for one in of_kind]
    (mine, parts), (mine_random, parts_random) = (_scores(means, one, every) for one in (own, random))
    found = []
    for kind, places in over.items():
        found += means.beside_random(f"{kind}_own", mine, mine_random, "higher", places)
        found += means.beside_random(f"{kind}_parts", parts, parts_random, "none", places)
        found.append(means.of(f"{kind}_own_above_parts", mine.less(parts), "higher", places))
    if {"conjunction", "additive"} <= over.keys():
        apart, chance = mine.less(parts).value, mine_random.less(parts_random).value
        for name, values in (("", apart), ("_random", chance), ("_above_random", apart - chance)):
            groups = (values[over[kind]] for kind in ("conjunction", "additive"))
            found.append(_contrast(f"own_above_additive{name}", *groups, means.resamples))
    return found


def _wholes(means: Means) -> dict[str, list[Whole]]:
    place_of = {concept.name: place for place, concept in enumerate(means.asking.concepts)}
    found: dict[str, list[Whole]] = {}
    for place, concept in enumerate(means.asking.concepts):
        if len(concept.parts) == 2 and all(part in place_of for part in concept.parts):
            first, second = (place_of[part] for part in concept.parts)
            found.setdefault(concept.kind, []).append(Whole(place, first, second))
    return found


def _scores(means: Means, of: Side, wholes: list[Whole]) -> tuple[Scores, Scores]:
    """On eval, of all concepts, 0 where one is no whole: the best unit of its own, and the best two of the parts."""
    empty: list[NDArray[np.int32]] = [np.zeros(0, np.int32)] * len(means.asking.concepts)
    mine, parts = list(empty), list(empty)
    stepped, on = levels(of.dev), means.asking.dev.tokens_of_each()
    for whole in wholes:
        told, of_first, of_second = (
            of.detection.chosen[of.living, place] for place in (whole.place, whole.first, whole.second)
        )
        its_own = told > np.maximum(of_first, of_second)
        if its_own.any():
            unit = of.living[np.where(its_own, told, -1).argmax()]
            detector, threshold = (
                table[unit, whole.place] for table in (of.detection.detector, of.detection.threshold)
            )
            mine[whole.place] = tokens_reaching(of.eval, int(detector), float(threshold))
        candidates = [
            _for_a_part(of.detection, of.living, part, (told_part >= told))
            for part, told_part in ((whole.first, of_first), (whole.second, of_second))
        ]
        both = best_both(stepped, of.dev, *candidates, on[whole.place])
        if both is not None:
            parts[whole.place] = both.tokens(of.eval)
    held, resamples = means.asking.eval, means.resamples
    return score_predictions(mine, held, resamples), score_predictions(parts, held, resamples)


def _for_a_part(detection: Detection, units: Integers, part: int, allowed: NDArray[np.bool_]) -> Integers:
    """Detectors of the units that tell a part best, of those that are `allowed`."""
    order = np.argsort(np.where(allowed, -detection.chosen[units, part], 1), kind="stable")[:PARTNERS]
    order = order[allowed[order]]
    return detection.detector[units[order], part].astype(np.int64)


def best_both(
    stepped: Levels, activity: Activity, firsts: Integers, seconds: Integers, on: Integers
) -> Combination | None:
    """The AND of two different units with the largest F1 over all pairs of levels; None where there are no two."""
    best: Combination | None = None
    positive = np.zeros(activity.n_tokens, bool)
    positive[on] = True
    level_of = {int(d): _level_of(stepped, activity, int(d)) for d in np.unique(np.concatenate([firsts, seconds]))}
    for first in firsts.tolist():
        for second in seconds.tolist():
            if first // 2 == second // 2:
                continue
            cell = level_of[first] * (LEVELS + 1) + level_of[second]
            said, right = (_reaching(cell[where]) for where in (slice(None), positive))
            f1 = 2 * right / (said + len(on))
            a, b = (int(place) for place in np.unravel_index(f1.argmax(), f1.shape))
            if best is None or f1[a, b] > best.f1:
                switches = Switch(first, float(stepped.cuts[first, a])), Switch(second, float(stepped.cuts[second, b]))
                best = Combination(float(f1[a, b]), "and", *switches)
    return best


def _level_of(stepped: Levels, activity: Activity, detector: int) -> NDArray[np.int64]:
    """Of every token; `LEVELS` where the detector is silent."""
    tokens, values = activity.of(detector)
    found = np.full(activity.n_tokens, LEVELS)
    found[tokens] = np.searchsorted(-stepped.cuts[detector], -values)
    return found


def _reaching(cell: NDArray[np.int64]) -> NDArray[np.float64]:
    """How many tokens reach level a of the first and level b of the second. `[LEVELS, LEVELS]`"""
    side = LEVELS + 1
    counts = np.bincount(cell, minlength=side * side).reshape(side, side)[:LEVELS, :LEVELS]
    return counts.cumsum(0).cumsum(1).astype(np.float64)


def _contrast(
    name: str, conjunction: NDArray[np.float64], additive: NDArray[np.float64], resamples: int
) -> Measurement:
    first, second = (
        resampled_sums(one[:, None], resamples, seed)[:, 0] / len(one)
        for seed, one in enumerate((conjunction, additive))
    )
    value = float(conjunction.mean() - additive.mean())
    direction = "none" if name.endswith("additive_random") else "higher"
    return Measurement(f"concepts/{name}", value, "F1", direction, VERSION, first - second, "units")
