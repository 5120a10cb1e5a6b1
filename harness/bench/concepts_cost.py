"""What coverage costs at sizes a person would want: every unit, threshold and concept, on made-up codes and labels."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

import numpy as np
import torch

from harness.metrics.concepts.activity import Activity, activity
from harness.metrics.concepts.detection import detect
from harness.metrics.concepts.predictions import best_units, expected_best, of_units, score_predictions
from harness.metrics.concepts.tokens import Held
from harness.metrics.joint.firing import Firing
from harness.training.memory import peak_memory, reset_peak_memory
from kernels.codes import Codes

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ConceptLoad:
    """Tokens of either split, concepts, and how many of them hold on a token (mean)."""

    tokens: int = 1_000_000
    concepts: int = 1000
    holding: int = 8
    resamples: int = 1000


@dataclass(frozen=True)
class ConceptCost:
    seconds: float
    peak_bytes: int


def measure(size: ConceptLoad, dev: Firing, evaluation: Firing, dev_held: Firing, held: Firing) -> ConceptCost:
    """Sorting the units' activations, the sweep on one split, the scores on the other with their resamples. Peak memory
    is that of the process."""
    reset_peak_memory()
    started = time.perf_counter()
    sides = [_activity(one, seed) for seed, one in enumerate((dev, evaluation))]
    truths = [Held(one.indptr, one.units.astype(np.int32), one.n_units, one.document) for one in (dev_held, held)]
    found = detect(sides[0], truths[0], sides[1], truths[1])
    living = np.flatnonzero(sides[0].firings() > 0)
    expected_best(found, living, max(1, len(living) // 16))
    score_predictions(of_units(found, sides[1], best_units(found, living)), truths[1], size.resamples)
    seconds = time.perf_counter() - started
    log.info("concepts: %.1f s", seconds)
    return ConceptCost(seconds, peak_memory())


def _activity(firing: Firing, seed: int) -> Activity:
    values = torch.rand(len(firing.units), generator=torch.Generator().manual_seed(seed)) + 1e-3
    rows = torch.zeros(len(firing.indptr) - 1, 2, dtype=torch.long)
    units = torch.from_numpy(firing.units.astype(np.int64))
    return activity([Codes(torch.from_numpy(firing.indptr), units, values, rows, firing.n_units)])
