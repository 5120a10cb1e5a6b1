"""The other way round: how many concepts a unit needs to be explained.

A unit fires on the tokens on which it is among the strongest of its site, so that one that never falls silent is
treated as one that does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from harness.metrics.concepts.activity import Activity, Integers
from harness.metrics.concepts.detection import LEAST
from harness.metrics.concepts.tokens import Held

PURE = 0.8
STEP = 0.01  # a further concept must raise F1 by this
MOST = 8


@dataclass(frozen=True)
class Purity:
    """Of every unit that fires `LEAST` times or more. precision: P(concept | the unit fires) of the best concept, among
    those that hold on at most half of all tokens; needed: concepts whose union tells the firing best, chosen greedily;
    explained: F1 of that union."""

    precision: NDArray[np.float64]
    needed: Integers
    explained: NDArray[np.float64]

    def pure(self) -> NDArray[np.bool_]:
        return self.precision >= PURE


def purity(firing: Activity, held: Held) -> Purity:
    """A unit fires where it is active, with either sign."""
    matrix = held.matrix()
    living = np.flatnonzero(firing.firings() >= LEAST)
    rare = held.positives() <= held.n_tokens / 2  # what nearly always holds is no meaning
    precision, needed, explained = [], [], []
    for unit in living:
        on = firing.tokens[firing.indptr[2 * unit] : firing.indptr[2 * unit + 2]]
        here = np.asarray(matrix[on].sum(0)).reshape(-1)
        precision.append(float(np.max(np.where(rare, here, 0), initial=0) / len(on)))
        n, f1 = _explained(matrix, on, here, held.positives())
        needed.append(n)
        explained.append(f1)
    return Purity(np.array(precision), np.array(needed, dtype=np.int64), np.array(explained))


def _explained(
    matrix: csr_array, on: NDArray[np.integer], here: NDArray[np.floating], positives: Integers
) -> tuple[int, float]:
    """How many concepts, greedily added, until their union tells no better where the unit fires; and its F1."""
    n_tokens = len(matrix.indptr) - 1
    uncovered = np.ones(n_tokens, np.float32)
    fires = np.zeros(n_tokens, np.float32)
    fires[on] = 1
    right, said, best, chosen = 0.0, 0.0, 0.0, 0
    gained, added = here.astype(np.float64), positives.astype(np.float64)
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
