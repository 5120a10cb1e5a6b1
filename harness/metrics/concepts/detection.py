"""How well each unit, with its best threshold, tells each concept: chosen on one text, scored on another.

F1 = 2·TP / (predicted + positive). It can only rise where a positive token is passed, so one sweep down a unit's sorted
activations, counting the concepts of each token, visits every threshold that can be best for any concept.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.metrics.concepts.activity import Activity
from harness.metrics.concepts.tokens import Held
from kernels.threads import jit, parallel

Matrix = NDArray[np.float32]

SURE = 0.95  # precision of a unit that counts as evidence by itself
LEAST = 10  # firings that a precision is taken from, and from which a unit lives
DOCUMENTS = 3  # in which a unit must have fired, since what holds all through one document makes any unit of it sure


@dataclass(frozen=True)
class Detection:
    """All `[units, concepts]` float32, of the sign that did better on dev. chosen: F1 on dev, with the threshold that
    makes it largest. scored: F1 of the same threshold on eval. detector: 2·unit, plus 1 where the negative sign did
    better. threshold: what the detector must reach. sure: the least value at which its dev precision reaches `SURE`,
    over `LEAST` firings or more in `DOCUMENTS` documents or more; infinite where none does."""

    chosen: Matrix
    scored: Matrix
    threshold: Matrix
    detector: NDArray[np.int32]
    sure: Matrix

    @property
    def n_units(self) -> int:
        return len(self.chosen)


def detect(dev: Activity, dev_held: Held, evaluation: Activity, held: Held) -> Detection:
    """Every unit against every concept. Only a detector that was active on dev can be chosen."""
    detectors, concepts = len(dev.indptr) - 1, dev_held.n_concepts
    chosen = np.zeros((detectors, concepts), np.float32)
    threshold = np.full((detectors, concepts), np.inf, np.float32)
    sure = np.full((detectors, concepts), np.inf, np.float32)
    parallel(
        _sweep, detectors, dev.indptr, dev.tokens, dev.values, dev_held.indptr, dev_held.concepts, dev_held.positives(),
        dev_held.document, SURE, LEAST, DOCUMENTS, chosen, threshold, sure,
    )  # fmt: skip
    scored = score(evaluation, held, threshold)
    negative = chosen[1::2] > chosen[::2]

    def of_the_better(both: Matrix) -> Matrix:
        return np.where(negative, both[1::2], both[::2])

    detector = np.where(negative, 1, 0).astype(np.int32) + 2 * np.arange(detectors // 2, dtype=np.int32)[:, None]
    # One after the other, so that of each the larger one goes before the next is made.
    chosen = of_the_better(chosen)
    scored = of_the_better(scored)
    threshold = of_the_better(threshold)
    return Detection(chosen, scored, threshold, detector, of_the_better(sure))


def score(activity: Activity, held: Held, threshold: Matrix) -> Matrix:
    """F1 of every detector at a threshold for every concept. Both `[detectors, concepts]`"""
    found = np.zeros_like(threshold)
    parallel(
        _scored, len(threshold), activity.indptr, activity.tokens, activity.values, held.indptr, held.concepts,
        held.positives(), threshold, found,
    )  # fmt: skip
    return found


@jit
def _sweep(
    indptr, tokens, values, held_indptr, held, positives, document, precision, least, documents, best, threshold, sure,
    start, stop,
):  # fmt: skip
    counts = np.zeros(len(positives), np.int64)
    last_seen_by = np.full(document.max() + 1, -1)
    for detector in range(start, stop):
        counts[:] = 0
        spread = 0
        first, last = indptr[detector], indptr[detector + 1]
        here = first
        while here < last:
            value, after = values[here], here
            while after < last and values[after] == value:  # a threshold takes all equal values or none
                if last_seen_by[document[tokens[after]]] != detector:
                    last_seen_by[document[tokens[after]]] = detector
                    spread += 1
                for place in range(held_indptr[tokens[after]], held_indptr[tokens[after] + 1]):
                    counts[held[place]] += 1
                after += 1
            predicted = after - first
            for entry in range(here, after):
                for place in range(held_indptr[tokens[entry]], held_indptr[tokens[entry] + 1]):
                    concept = held[place]
                    f1 = np.float32(2 * counts[concept] / (predicted + positives[concept]))
                    if f1 > best[detector, concept]:
                        best[detector, concept] = f1
                        threshold[detector, concept] = value
                    if predicted >= least and spread >= documents and counts[concept] >= precision * predicted:
                        sure[detector, concept] = value
            here = after


@jit
def _scored(indptr, tokens, values, held_indptr, held, positives, threshold, found, start, stop):
    for detector in range(start, stop):
        first, last = indptr[detector], indptr[detector + 1]
        for entry in range(first, last):
            for place in range(held_indptr[tokens[entry]], held_indptr[tokens[entry] + 1]):
                concept = held[place]
                if values[entry] >= threshold[detector, concept]:
                    found[detector, concept] += 1
        for concept in range(len(positives)):
            if found[detector, concept] > 0:
                predicted = reaching(values, first, last, threshold[detector, concept])
                found[detector, concept] = 2 * found[detector, concept] / (predicted + positives[concept])


@jit
def reaching(values, first, last, threshold):
    """How many of the descending values in [first, last) reach the threshold."""
    low, high = first, last
    while low < high:
        middle = (low + high) // 2
        if values[middle] >= threshold:
            low = middle + 1
        else:
            high = middle
    return low - first
