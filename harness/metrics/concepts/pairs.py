"""How much more two units tell together than the better one alone: meaning that lives in combinations. [U: ours]

For every concept the best AND, AND NOT and OR of two living units, each with a threshold of its own, chosen on dev and
scored on eval. One unit of the pair is among the few that tell the concept best alone, with its best threshold or a
loose one; the other is any unit of any site at any of its levels; then the first is searched again beside the second.
AND and AND NOT are kept apart from OR: [10, 10] = bird is the former; one concept that is split over two units the
latter. The same search over random directions says what it finds where nobody learnt anything.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.metrics.concepts.activity import Activity, Integers
from harness.metrics.concepts.detection import Detection
from harness.metrics.concepts.levels import LEVELS, Levels, levels
from harness.metrics.concepts.predictions import best_units, tokens_reaching
from harness.metrics.concepts.tokens import Held
from kernels.threads import jit, parallel

FIRSTS = 4  # units that are tried first
RECALL = 0.95  # of the tokens with the concept on which a unit is active, at its loose threshold
HOWS = ("and", "first and not second", "second and not first", "or")
_JOINT, _SPLIT = 0, 1  # families of ways: what only both say, and what either says


@dataclass(frozen=True)
class Switch:
    """A detector that is on from a value on."""

    detector: int
    threshold: float


@dataclass(frozen=True)
class Combination:
    """Two switches and how they are combined, with the F1 of it on dev."""

    f1: float
    how: str
    first: Switch
    second: Switch

    def tokens(self, activity: Activity) -> NDArray[np.int32]:
        first, second = (tokens_reaching(activity, one.detector, one.threshold) for one in (self.first, self.second))
        if self.how == "and":
            return np.intersect1d(first, second)
        if self.how == "or":
            return np.union1d(first, second)
        return np.setdiff1d(first, second) if self.how == "first and not second" else np.setdiff1d(second, first)


@dataclass(frozen=True)
class Pairs:
    """What is said of each concept on eval: by the best unit, by the best AND or AND NOT, by the best OR. Where no pair
    beats the unit on dev, the unit alone stands for the pair. found: the best AND or AND NOT."""

    single: list[NDArray[np.int32]]
    joint: list[NDArray[np.int32]]
    split: list[NDArray[np.int32]]
    found: list[Combination | None]


def pairs(detection: Detection, dev: Activity, dev_held: Held, evaluation: Activity, units: Integers) -> Pairs:
    """Over `units`."""
    chosen = best_units(detection, units)
    found = best_pairs(detection, dev, dev_held, units)
    told = Pairs([], [], [], [joint for joint, _ in found])
    for concept, unit in enumerate(chosen):
        switch = Switch(int(detection.detector[unit, concept]), float(detection.threshold[unit, concept]))
        alone = tokens_reaching(evaluation, switch.detector, switch.threshold)
        least = float(detection.chosen[unit, concept])
        told.single.append(alone)
        for family, into in ((_JOINT, told.joint), (_SPLIT, told.split)):
            best = found[concept][family]
            into.append(alone if best is None or best.f1 <= least else best.tokens(evaluation))
    return told


def best_pairs(
    detection: Detection, dev: Activity, held: Held, units: Integers
) -> list[tuple[Combination | None, Combination | None]]:
    """Of each concept the best combination of the first family and of the second; None where there is none."""
    activity = dev.restricted(units)  # detectors by their place in `units` from here on
    stepped = levels(activity)
    on = held.tokens_of_each()
    firsts = [_firsts(detection, dev, units, tokens, concept) for concept, tokens in enumerate(on)]
    found = _search(stepped, activity, firsts, on)
    # What was second comes first, and the other is searched again.
    again = [[one.second for one in pair if one is not None] for pair in found]
    for pair, better in zip(found, _search(stepped, activity, again, on), strict=True):
        for family in (_JOINT, _SPLIT):
            old, new = pair[family], better[family]
            if new is not None and (old is None or new.f1 > old.f1):
                pair[family] = new
    number = np.stack([2 * units, 2 * units + 1], 1).reshape(-1)

    def named(one: Combination | None) -> Combination | None:
        if one is None:
            return None
        first, second = (Switch(int(number[each.detector]), each.threshold) for each in (one.first, one.second))
        return Combination(one.f1, one.how, first, second)

    return [(named(pair[_JOINT]), named(pair[_SPLIT])) for pair in found]


def _firsts(detection: Detection, dev: Activity, units: Integers, on: Integers, concept: int) -> list[Switch]:
    order = np.argsort(-detection.chosen[units, concept], kind="stable")[:FIRSTS]
    found = []
    for place in order:
        detector = int(detection.detector[units[place], concept])
        tokens, values = dev.of(detector)
        inside = values[np.isin(tokens, on)]
        if not len(inside):
            continue
        here = int(2 * place + detector % 2)
        thresholds = {float(detection.threshold[units[place], concept])}
        thresholds.add(float(inside[int(RECALL * (len(inside) - 1))]))
        found += [Switch(here, threshold) for threshold in sorted(thresholds)]
    return found


def _search(
    stepped: Levels, activity: Activity, firsts: list[list[Switch]], on: list[Integers]
) -> list[list[Combination | None]]:
    """The best partner of every concept's first switches, by family."""
    bounds = np.cumsum([0, *map(len, firsts)])
    flat = [switch for of_concept in firsts for switch in of_concept]
    detector = np.array([switch.detector for switch in flat], np.int64)
    threshold = np.array([switch.threshold for switch in flat], np.float32)
    truth = np.concatenate([np.zeros(0, np.int64), *on]), np.cumsum([0, *map(len, on)])
    # Of each concept and family: F1, and first, second, its level, and how.
    f1, which = np.full((len(firsts), 2), -1.0), np.zeros((len(firsts), 2, 4), np.int64)
    parallel(
        _partners, len(firsts), stepped.indptr, stepped.detectors, stepped.level, stepped.tokens, activity.indptr,
        activity.tokens, activity.values, *truth, bounds, detector, threshold, f1, which, grain=1,
    )  # fmt: skip

    def combination(concept: int, family: int) -> Combination | None:
        if f1[concept, family] < 0:
            return None
        first, second, level, how = which[concept, family]
        partner = Switch(int(second), float(stepped.cuts[second, level]))
        return Combination(float(f1[concept, family]), HOWS[how], flat[first], partner)

    return [[combination(concept, family) for family in (_JOINT, _SPLIT)] for concept in range(len(firsts))]


@jit
def _partners(
    indptr, detectors, level, tokens_of_level, unit_indptr, unit_tokens, unit_values, on, on_indptr, bounds, first_of,
    threshold_of, best, which, start, stop,
):  # fmt: skip
    n_detectors = len(tokens_of_level)
    positive = np.zeros(len(indptr) - 1, np.bool_)
    right_all = np.zeros((n_detectors, LEVELS), np.int32)
    right, said = np.zeros_like(right_all), np.zeros_like(right_all)
    for concept in range(start, stop):
        true = on[on_indptr[concept] : on_indptr[concept + 1]]
        right_all[:] = 0
        for token in true:
            positive[token] = True
            for entry in range(indptr[token], indptr[token + 1]):
                right_all[detectors[entry], level[entry]] += 1
        for first in range(bounds[concept], bounds[concept + 1]):
            # What each other detector does on the tokens that the first says.
            right[:] = 0
            said[:] = 0
            n_said, n_right = 0, 0
            for at in range(unit_indptr[first_of[first]], unit_indptr[first_of[first] + 1]):
                if unit_values[at] < threshold_of[first]:
                    break
                token = unit_tokens[at]
                n_said += 1
                n_right += positive[token]
                for entry in range(indptr[token], indptr[token + 1]):
                    said[detectors[entry], level[entry]] += 1
                    right[detectors[entry], level[entry]] += positive[token]
            for other in range(n_detectors):
                if other // 2 == first_of[first] // 2:
                    continue
                p_both, n_both, p_other, n_other = 0, 0, 0, 0
                for at in range(LEVELS):
                    p_both += right[other, at]
                    n_both += said[other, at]
                    p_other += right_all[other, at]
                    n_other += tokens_of_level[other, at]
                    if tokens_of_level[other, at] == 0:
                        continue
                    for how in range(4):
                        if how == 0:
                            p, n = p_both, n_both
                        elif how == 1:
                            p, n = n_right - p_both, n_said - n_both
                        elif how == 2:
                            p, n = p_other - p_both, n_other - n_both
                        else:
                            p, n = n_right + p_other - p_both, n_said + n_other - n_both
                        f1 = 2 * p / (n + len(true))
                        family = how // 3
                        if f1 > best[concept, family]:
                            best[concept, family] = f1
                            which[concept, family, 0], which[concept, family, 1] = first, other
                            which[concept, family, 2], which[concept, family, 3] = at, how
        for token in true:
            positive[token] = False
