"""Has *bird* a unit of its own, or only dog and cat? For every planted pair of concepts, beside pairs that only add up.

A set of tokens is the pair's own where it tells the pair better than it tells either part: a perfect dog unit is no
bird unit, though it scores 0.49 on bird where a third of the dogs are birds; a graded unit, 2 on bird and 1 on dog, is
both, at two thresholds. Additive pairs have no meaning of their own to have a unit for, so what conjunctions have over
them is the answer: `own_above_additive`. It is 0 where birds are told by dog and cat together, where nothing is known,
and where every state has a unit; `hidden` tells the first apart: how much more two units tell than the pair's own one.
Beside it stand random directions, and the logits: who predicts well has birds in the output, with no unit that knows
one. [U: ours]
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
from harness.tables.measurement import Direction, Measurement
from harness.tables.statistics import resampled_sums

PARTNERS = 6  # units tried for each part


@dataclass(frozen=True)
class Whole:
    """A concept that is two others together, by their places among the asked."""

    place: int
    first: int
    second: int


@dataclass(frozen=True)
class _Told:
    """F1 on eval of every concept, 0 where one is no whole: of the best unit of its own; of the best AND of two units
    of the parts; of the best two units at all."""

    own: Scores
    parts: Scores
    pair: Scores


def conjunctions(means: Means, own: Side, random: Side, logits: Activities, pairs: Pairs) -> list[Measurement]:
    """By relation of the pair: `<relation>_own`, `<relation>_parts`, `<relation>_hidden` (the best two units less its
    own), each beside random directions. `own_above_additive`: own over conjunctions less own over additive pairs, pairs
    resampled, beside random directions, and `own_above_additive_logits` of the logits as units. pairs: the best AND or
    AND NOT of each concept, of units and of directions."""
    wholes = _wholes(means)
    if not wholes:
        return []
    every = [one for of_kind in wholes.values() for one in of_kind]
    mine, chance = (_told(means, side, every, of) for side, of in ((own, pairs[0]), (random, pairs[1])))
    found = []
    over = {kind: np.array([one.place for one in of_kind]) for kind, of_kind in wholes.items()}
    for kind, places in over.items():
        found += means.beside_random(f"{kind}_own", mine.own, chance.own, "higher", places)
        found += means.beside_random(f"{kind}_parts", mine.parts, chance.parts, "none", places)
        hidden, hidden_random = mine.pair.less(mine.own), chance.pair.less(chance.own)
        found += means.beside_random(f"{kind}_hidden", hidden, hidden_random, "lower", places)
    if {"conjunction", "additive"} <= over.keys():
        of_logits = _own(means, levels(logits[0]), logits[1], every)
        for name, values in (
            ("", mine.own.value),
            ("_random", chance.own.value),
            ("_above_random", mine.own.value - chance.own.value),
            ("_logits", of_logits.value),
        ):
            meant, summed = (values[over[kind]] for kind in ("conjunction", "additive"))
            direction: Direction = "higher" if name in ("", "_above_random") else "none"
            found.append(_contrast(f"own_above_additive{name}", meant, summed, means.resamples, direction))
    return found


Activities = tuple[Activity, Activity]  # on dev and on eval
Pairs = tuple[list[Combination | None], list[Combination | None]]


def _wholes(means: Means) -> dict[str, list[Whole]]:
    place_of = {concept.name: place for place, concept in enumerate(means.asking.concepts)}
    found: dict[str, list[Whole]] = {}
    for place, concept in enumerate(means.asking.concepts):
        if len(concept.parts) == 2 and all(part in place_of for part in concept.parts):
            first, second = (place_of[part] for part in concept.parts)
            found.setdefault(concept.kind, []).append(Whole(place, first, second))
    return found


def _told(means: Means, of: Side, wholes: list[Whole], pairs: list[Combination | None]) -> _Told:
    parts, pair = _nothing(means), _nothing(means)
    stepped, on = levels(of.dev), means.asking.dev.tokens_of_each()
    for whole in wholes:
        told, *of_parts = (_f1_by_level(stepped, on[place]) for place in (whole.place, whole.first, whole.second))
        sides = [
            Part(_for_a_part(of.detection, of.living, part), table >= told)
            for part, table in zip((whole.first, whole.second), of_parts, strict=True)
        ]
        both = best_both(stepped, of.dev, sides[0], sides[1], on[whole.place])
        tried = [one for one in (both, pairs[whole.place]) if one is not None]
        if both is not None:
            parts[whole.place] = both.tokens(of.eval)
        if tried:
            pair[whole.place] = max(tried, key=lambda one: one.f1).tokens(of.eval)
    held, resamples = means.asking.eval, means.resamples
    return _Told(
        _own(means, stepped, of.eval, wholes),
        score_predictions(parts, held, resamples),
        score_predictions(pair, held, resamples),
    )


def _own(means: Means, dev: Levels, evaluation: Activity, wholes: list[Whole]) -> Scores:
    on, told = means.asking.dev.tokens_of_each(), _nothing(means)
    for whole in wholes:
        switch = best_own(dev, on[whole.place], on[whole.first], on[whole.second])
        if switch is not None:
            told[whole.place] = tokens_reaching(evaluation, switch.detector, switch.threshold)
    return score_predictions(told, means.asking.eval, means.resamples)


def _nothing(means: Means) -> list[NDArray[np.int32]]:
    return [np.zeros(0, np.int32)] * len(means.asking.concepts)


def best_own(stepped: Levels, whole: Integers, first: Integers, second: Integers) -> Switch | None:
    """Of all units and levels whose tokens tell `whole` better than they tell either part, the one that tells it best;
    None where there is none."""
    f1 = [_f1_by_level(stepped, on) for on in (whole, first, second)]
    scores = np.where(f1[0] > np.maximum(f1[1], f1[2]), f1[0], 0)
    detector, level = (int(at) for at in np.unravel_index(scores.argmax(), scores.shape))
    if scores[detector, level] == 0:
        return None
    return Switch(detector, float(stepped.cuts[detector, level]))


def _f1_by_level(stepped: Levels, on: Integers) -> NDArray[np.float64]:
    """Of every detector from every level on. `[detectors, LEVELS]`"""
    return 2 * _reached(stepped, on).cumsum(1) / (stepped.tokens.cumsum(1) + len(on))


def _reached(stepped: Levels, tokens: Integers) -> NDArray[np.int64]:
    """On how many of `tokens` each detector has each level. `[detectors, LEVELS]`"""
    lengths = np.diff(stepped.indptr)[tokens]
    before = np.cumsum(lengths) - lengths
    entries = np.arange(lengths.sum()) + np.repeat(stepped.indptr[tokens] - before, lengths)
    cell = stepped.detectors[entries].astype(np.int64) * LEVELS + stepped.level[entries]
    return np.bincount(cell, minlength=stepped.cuts.size).reshape(stepped.cuts.shape)


def _for_a_part(detection: Detection, units: Integers, part: int) -> Integers:
    """Detectors of the units that tell a part best."""
    order = np.argsort(-detection.chosen[units, part], kind="stable")[:PARTNERS]
    return detection.detector[units[order], part].astype(np.int64)


@dataclass(frozen=True)
class Part:
    """The detectors that tell a part best, and at which levels `[detectors of all, LEVELS]` a detector tells it no
    worse than the pair."""

    detectors: Integers
    levels: NDArray[np.bool_]


def best_both(stepped: Levels, activity: Activity, firsts: Part, seconds: Part, on: Integers) -> Combination | None:
    """The AND of two different units with the largest F1 over all pairs of levels; None where there are no two."""
    best: Combination | None = None
    positive = np.zeros(activity.n_tokens, bool)
    positive[on] = True
    level_of = {
        int(d): _level_of(stepped, activity, int(d))
        for d in np.unique(np.concatenate([firsts.detectors, seconds.detectors]))
    }
    for first in firsts.detectors.tolist():
        for second in seconds.detectors.tolist():
            if first // 2 == second // 2:
                continue
            cell = level_of[first] * (LEVELS + 1) + level_of[second]
            said, right = (_reaching(cell[where]) for where in (slice(None), positive))
            f1 = 2 * right / (said + len(on)) * firsts.levels[first][:, None] * seconds.levels[second]
            a, b = (int(place) for place in np.unravel_index(f1.argmax(), f1.shape))
            if f1[a, b] > (0 if best is None else best.f1):
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
    name: str,
    conjunction: NDArray[np.float64],
    additive: NDArray[np.float64],
    resamples: int,
    direction: Direction,
) -> Measurement:
    first, second = (
        resampled_sums(one[:, None], resamples, seed)[:, 0] / len(one)
        for seed, one in enumerate((conjunction, additive))
    )
    value = float(conjunction.mean() - additive.mean())
    return Measurement(f"concepts/{name}", value, "F1", direction, VERSION, first - second, "units")
