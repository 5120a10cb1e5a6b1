"""What is predicted for each concept on eval, and how right that is, with the documents resampled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.metrics.concepts.activity import Activity, Integers
from harness.metrics.concepts.detection import Detection, reaching
from harness.metrics.concepts.tokens import Held
from harness.tables.statistics import resampled_sums

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Scores:
    """F1 of every concept, `value` `[concepts]`, and on resampled documents `replicates` `[resamples, concepts]`."""

    value: Floats
    replicates: Floats

    def moved_to(self, value: Floats) -> Scores:
        """The same spread around another value."""
        return Scores(value, self.replicates + (value - self.value))

    def less(self, other: Scores) -> Scores:
        return Scores(self.value - other.value, self.replicates - other.replicates)


def score_predictions(predicted: Sequence[NDArray[np.integer]], held: Held, resamples: int) -> Scores:
    """predicted: for each concept the tokens on which it is said to hold, each once. F1 is 0 where nothing is right."""
    truth, right, said = np.zeros(held.n_tokens, bool), [], []
    n_documents = int(held.document.max()) + 1
    for tokens, true in zip(predicted, held.tokens_of_each(), strict=True):
        truth[true] = True
        right.append(np.bincount(held.document[tokens[truth[tokens]]], minlength=n_documents))
        said.append(np.bincount(held.document[tokens], minlength=n_documents))
        truth[true] = False
    columns = np.concatenate(
        [np.stack(right, 1), np.stack(said, 1), held.by_document()], 1
    )  # [documents, 3 · concepts]
    return Scores(_f1(columns.sum(0, keepdims=True))[0], _f1(resampled_sums(columns, resamples)))


def _f1(sums: Floats) -> Floats:
    right, said, positive = np.split(sums, 3, axis=1)
    return 2 * right / np.maximum(said + positive, 1)


def tokens_reaching(activity: Activity, detector: int, threshold: float) -> NDArray[np.int32]:
    """The tokens on which a detector reaches a threshold, the strongest first."""
    first, last = activity.indptr[detector], activity.indptr[detector + 1]
    return activity.tokens[first : first + reaching(activity.values, first, last, np.float32(threshold))]


def best_units(detection: Detection, units: Integers) -> Integers:
    """Of `units` the one that told each concept best on dev. `[concepts]`"""
    return units[detection.chosen[units].argmax(0)]


def of_units(detection: Detection, activity: Activity, unit_of: Integers) -> list[NDArray[np.int32]]:
    """For each concept the tokens on which its unit `unit_of[concept]` reaches its threshold."""
    return [
        tokens_reaching(activity, int(detection.detector[unit, concept]), float(detection.threshold[unit, concept]))
        for concept, unit in enumerate(unit_of)
    ]


def of_sure_units(detection: Detection, activity: Activity, units: Integers) -> list[NDArray[np.int32]]:
    """For each concept the tokens on which any of `units` reaches the value that it is sure of the concept at: the
    reconstruction of a board state from high-precision features (arXiv 2408.00113)."""
    found = []
    for concept in range(detection.chosen.shape[1]):
        parts = [
            tokens_reaching(activity, int(detection.detector[unit, concept]), float(detection.sure[unit, concept]))
            for unit in units[np.isfinite(detection.sure[units, concept])]
        ]
        found.append(np.unique(np.concatenate(parts)) if parts else np.zeros(0, np.int32))
    return found


def expected_best(detection: Detection, units: Integers, drawn: int, least: float | None = None) -> Floats:
    """Mean over all draws of `drawn` of `units` of the eval F1 of the one that is best on dev; with `least`, the share
    of draws in which that F1 reaches it. `[concepts]`

    A best of many is better than a best of few, so systems are compared at one number. In order of dev F1, the i-th
    unit is the best of a draw with probability C(U − 1 − i, N − 1) / C(U, N), so no draw needs to be made.
    """
    total = len(units)
    if drawn > total:
        raise ValueError(f"{drawn} units drawn from {total}")
    weights = np.empty(total - drawn + 1)
    weights[0] = drawn / total
    for place in range(1, len(weights)):
        weights[place] = weights[place - 1] * (total - drawn - place + 1) / (total - place)
    # Beyond some place a unit is never the best of a draw, to 1e-12: only the first places are put in order.
    weights = weights[: int(np.searchsorted(np.cumsum(weights), 1 - 1e-12)) + 1]
    chosen, scored = detection.chosen[units], detection.scored[units]
    if least is not None:
        scored = scored >= least
    if len(weights) < total // 2:
        first = np.argpartition(-chosen, len(weights), axis=0)[: len(weights)]
        chosen, scored = np.take_along_axis(chosen, first, axis=0), np.take_along_axis(scored, first, axis=0)
    order = np.argsort(-chosen, axis=0, kind="stable")[: len(weights)]
    return weights @ np.take_along_axis(scored, order, axis=0).astype(np.float64)
