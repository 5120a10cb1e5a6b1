"""How much more two units tell together than the better one alone: meaning that lives in combinations.

For every concept the best of AND, AND NOT and OR over pairs of candidate units with some thresholds each, chosen on dev
and scored on eval; and as a floor the same search with the second unit drawn at random, since the best of thousands of
pairs looks good by chance and a second threshold helps even where there is nothing to combine. [U: ours]
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array

from harness.metrics.concepts.activity import Activity, Integers
from harness.metrics.concepts.detection import Detection
from harness.metrics.concepts.predictions import Scores, best_units, of_units, score_predictions, tokens_reaching
from harness.metrics.concepts.tokens import Held

BY_F1, AGAINST = 16, 8  # candidates: the best alone, and those that fire where the best one is wrong


@dataclass(frozen=True)
class PairScores:
    """single: the best unit alone; pair: the best two; floor: the best with a random second."""

    single: Scores
    pair: Scores
    floor: Scores


@dataclass(frozen=True)
class Switch:
    """A unit that is on from a value on."""

    detector: int
    threshold: float


@dataclass(frozen=True)
class Combination:
    """Two switches and how they are combined, with the F1 of it on dev."""

    f1: float
    how: str  # and, and not, or
    first: Switch
    second: Switch


def pair_scores(
    detection: Detection, dev: Activity, dev_held: Held, evaluation: Activity, held: Held, units: Integers,
    resamples: int, seed: int,
) -> PairScores:  # fmt: skip
    """Over `units` only. Where no pair beats the best unit on dev, the unit alone stands for the pair."""
    chosen = best_units(detection, units)
    alone = of_units(detection, evaluation, chosen)
    firing = _firing(dev, units)
    generator = np.random.default_rng([seed, len(units)])
    paired, floored = [], []
    for concept, on in enumerate(dev_held.tokens_of_each()):
        candidates = _candidates(detection, dev, units, firing, on, concept)
        others = np.setdiff1d(units, candidates)
        drawn = generator.choice(others, min(len(candidates), len(others)), replace=False)
        first = _switches(detection, dev, candidates, on, concept)
        second = _switches(detection, dev, drawn, on, concept)
        least = float(detection.chosen[chosen[concept], concept])
        for found, partners in ((paired, first), (floored, second)):
            together = best(dev, first, partners, on)
            found.append(alone[concept] if together is None or together.f1 <= least else _tokens(evaluation, together))
    return PairScores(*(score_predictions(found, held, resamples) for found in (alone, paired, floored)))


def both(
    detection: Detection, activity: Activity, first: tuple[int, int], second: tuple[int, int]
) -> NDArray[np.int32]:
    """Tokens on which two units both reach their thresholds; each is (unit, the concept whose threshold it has)."""
    one, other = (
        tokens_reaching(activity, int(detection.detector[place]), float(detection.threshold[place]))
        for place in (first, second)
    )
    return np.intersect1d(one, other)


def _firing(dev: Activity, units: Integers) -> csc_array:
    """Whether each of `units` is active at all. `[tokens, units]`"""
    only = dev.restricted(units)
    return csc_array(
        (np.ones(len(only.tokens), np.float32), only.tokens, only.indptr[::2]), shape=(dev.n_tokens, len(units))
    )


def _candidates(
    detection: Detection, dev: Activity, units: Integers, firing: csc_array, on: Integers, concept: int
) -> Integers:
    order = np.argsort(-detection.chosen[units, concept], kind="stable")
    best = units[order[:BY_F1]]
    said = tokens_reaching(dev, int(detection.detector[best[0], concept]), float(detection.threshold[best[0], concept]))
    weight = np.zeros(dev.n_tokens, np.float32)
    right = np.isin(said, on)
    weight[said[~right]] = 1 / max(1, int((~right).sum()))
    weight[said[right]] = -1 / max(1, int(right.sum()))
    against = units[np.argsort(-(weight @ firing), kind="stable")[:AGAINST]]
    return np.unique(np.concatenate([best, against]))


def _switches(
    detection: Detection, dev: Activity, units: NDArray[np.integer], on: Integers, concept: int
) -> list[Switch]:
    """Each unit with up to three thresholds: active at all, best for the concept, median where the concept holds."""
    found = []
    for unit in units:
        detector = int(detection.detector[unit, concept])
        tokens, values = dev.of(detector)
        if not len(values):
            detector ^= 1
            tokens, values = dev.of(detector)
        thresholds = {float(values[-1])} if len(values) else set()
        if np.isfinite(detection.threshold[unit, concept]):
            thresholds.add(float(detection.threshold[unit, concept]))
        inside = values[np.isin(tokens, on)]
        if len(inside):
            thresholds.add(float(np.sort(inside)[len(inside) // 2]))
        found += [Switch(detector, threshold) for threshold in sorted(thresholds)]
    return found


def best(dev: Activity, firsts: list[Switch], seconds: list[Switch], on: Integers) -> Combination | None:
    """The combination of two different units with the largest F1 on dev; None where there are no two."""
    if not firsts or not seconds:
        return None
    left, right = _table(dev, firsts), _table(dev, seconds)
    n_left, n_right = left.sum(0)[:, None], right.sum(0)[None]
    p_left, p_right = left[on].sum(0)[:, None], right[on].sum(0)[None]
    together, p_together = left.T @ right, left[on].T @ right[on]
    f1 = np.stack([
        _f1(p_together, together, len(on)),
        _f1(p_left - p_together, n_left - together, len(on)),
        _f1(p_left + p_right - p_together, n_left + n_right - together, len(on)),
    ])  # fmt: skip
    same = np.array([a.detector for a in firsts])[:, None] // 2 == np.array([b.detector for b in seconds])[None] // 2
    f1[:, same] = -1
    how, a, b = (int(place) for place in np.unravel_index(f1.argmax(), f1.shape))
    if f1[how, a, b] < 0:
        return None
    return Combination(float(f1[how, a, b]), ("and", "and not", "or")[how], firsts[a], seconds[b])


def _f1(right: NDArray[np.float32], said: NDArray[np.float32], positive: int) -> NDArray[np.float32]:
    return 2 * right / (said + positive)


def _table(activity: Activity, switches: list[Switch]) -> NDArray[np.float32]:
    """Whether each switch is on. `[tokens, switches]`"""
    found = np.zeros((activity.n_tokens, len(switches)), np.float32)
    for column, switch in enumerate(switches):
        found[tokens_reaching(activity, switch.detector, switch.threshold), column] = 1
    return found


def _tokens(activity: Activity, combination: Combination) -> NDArray[np.int32]:
    first, second = (
        tokens_reaching(activity, switch.detector, switch.threshold)
        for switch in (combination.first, combination.second)
    )
    if combination.how == "and":
        return np.intersect1d(first, second)
    return np.setdiff1d(first, second) if combination.how == "and not" else np.union1d(first, second)
