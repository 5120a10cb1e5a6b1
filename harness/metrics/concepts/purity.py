"""The other way round: how many concepts a unit needs to be explained.

A unit fires where it is among the strongest of its site, so that one that never falls silent is treated as one that
does. What a unit is called is chosen on dev and scored on eval; and it must fire in several documents, since one that
fires in one alone is "pure" for whatever holds all through that document.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from harness.metrics.concepts.activity import Activity, Integers
from harness.metrics.concepts.detection import DOCUMENTS, LEAST
from harness.metrics.concepts.tokens import Held

PURE = 0.8
CONTAINED = 0.99  # share of a concept's tokens from which on it lies within another
STEP = 0.01  # a further concept must raise F1 by this
MOST = 8

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Purity:
    """Of every unit that fires `LEAST` times or more in `DOCUMENTS` documents or more of either split. precision: on
    eval, P(concept | the unit fires) of the concept that is most precise on dev, of those that hold on at most
    half of the tokens (what nearly always holds is no meaning); of a heading (`_headings`) only where the unit fires on
    nearly all of it. units: which."""

    units: Integers
    precision: Floats

    def pure(self) -> NDArray[np.bool_]:
        return self.precision >= PURE


@dataclass(frozen=True)
class Explained:
    """Of each unit asked: the concepts whose union tells best where it fires, chosen greedily on dev. needed: how many;
    f1: of the union on dev, in sample."""

    needed: Integers
    f1: Floats


def purity(dev: Activity, dev_held: Held, evaluation: Activity, held: Held) -> Purity:
    """A unit fires where it is active, with either sign."""
    firings, together = _together(dev, dev_held)
    eval_firings, eval_together = _together(evaluation, held)
    spread = np.minimum(_documents(dev, dev_held), _documents(evaluation, held))
    units = np.flatnonzero((np.minimum(firings, eval_firings) >= LEAST) & (spread >= DOCUMENTS))
    positives = dev_held.positives()
    either = firings[:, None] + positives
    told = (2 * together >= PURE * either) & (either > 0)  # all of it, so that a heading is what the unit means
    allowed = (positives <= dev_held.n_tokens / 2) & (told | ~_headings(dev_held))
    chosen = np.where(allowed, together, -1)[units].argmax(1)
    return Purity(units, eval_together[units, chosen] / eval_firings[units])


def explained(firing: Activity, held: Held, units: Integers) -> Explained:
    """Of `units`, those that fire at all."""
    matrix, positives = held.matrix(), held.positives()
    found = []
    for unit in units:
        on = firing.tokens[firing.indptr[2 * unit] : firing.indptr[2 * unit + 2]]
        if len(on):
            found.append(_explained(matrix, on, positives))
    needed, f1 = zip(*found, strict=True) if found else ((), ())
    return Explained(np.array(needed, dtype=np.int64), np.array(f1))


def _headings(held: Held) -> NDArray[np.bool_]:
    """Concepts that hold wherever either of two others does, of which neither contains the other: a topic, whose every
    concept is precise for it. A unit of several of them is one of many things, not of one. `[concepts]`"""
    positives = held.positives()
    both = np.asarray((held.matrix().T @ held.matrix()).todense())
    contains = (both >= CONTAINED * positives) & (positives < positives[:, None])  # row holds wherever column does
    of_child = contains.astype(int) @ contains.astype(int)  # column is below something that is below row
    return (contains & (of_child == 0)).sum(1) >= 2


def _together(firing: Activity, held: Held) -> tuple[Integers, Floats]:
    """On how many tokens each unit fires `[units]`, and with each concept `[units, concepts]`."""
    fires = _fires(firing)
    return firing.firings(), np.asarray((fires.T @ held.matrix()).todense(), dtype=np.float64)


def _documents(firing: Activity, held: Held) -> Integers:
    """In how many documents each unit fires. `[units]`"""
    n_documents = int(held.document.max()) + 1
    shape = (firing.n_tokens, n_documents)
    of_token = csr_array(
        (np.ones(firing.n_tokens, np.float32), (np.arange(firing.n_tokens), held.document)), shape=shape
    )
    return np.asarray(((_fires(firing).T @ of_token) > 0).sum(1)).reshape(-1).astype(np.int64)


def _fires(firing: Activity) -> csr_array:
    """`[tokens, units]` of ones."""
    detector = np.repeat(np.arange(len(firing.indptr) - 1), np.diff(firing.indptr))
    ones = np.ones(len(firing.tokens), np.float32)
    return csr_array((ones, (firing.tokens, detector // 2)), shape=(firing.n_tokens, firing.n_units))


def _explained(matrix: csr_array, on: NDArray[np.integer], positives: Integers) -> tuple[int, float]:
    """How many concepts, greedily added, until their union tells no better where the unit fires; and its F1."""
    n_tokens = len(matrix.indptr) - 1
    uncovered = np.ones(n_tokens, np.float32)
    fires = np.zeros(n_tokens, np.float32)
    fires[on] = 1
    right, said, best, chosen = 0.0, 0.0, 0.0, 0
    gained, added = np.asarray(fires @ matrix, dtype=np.float64), positives.astype(np.float64)
    while chosen < MOST:
        f1 = 2 * (right + gained) / (said + added + len(on))
        concept = int(f1.argmax())
        if f1[concept] < best + STEP:
            break
        best, chosen = float(f1[concept]), chosen + 1
        right, said = right + gained[concept], said + added[concept]
        uncovered[matrix[:, [concept]].nonzero()[0]] = 0
        gained = np.asarray((uncovered * fires) @ matrix, dtype=np.float64)
        added = np.asarray(uncovered @ matrix, dtype=np.float64)
    return chosen, best
