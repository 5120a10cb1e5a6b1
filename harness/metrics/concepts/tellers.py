"""Which units tell which concept where they fire, for metrics that then do something to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from harness.corpus.labels import Labels
from harness.metrics.concepts.activity import Activity, activity
from harness.metrics.concepts.detection import Detection
from harness.metrics.concepts.tokens import Asked, Wanted, asked, numbered
from harness.metrics.joint.pairs import Fired
from harness.systems.evaluation import Evaluation
from harness.systems.system import Site
from kernels.codes import Codes


@dataclass(frozen=True)
class Teller:
    """A unit that tells a concept where it fires with this sign; f1 on dev and on eval."""

    site: Site
    unit: int
    sign: int
    chosen: float
    scored: float


def concepts_of(
    evaluation: Evaluation, wanted: Wanted, only: Callable[[Labels], Labels] = lambda labels: labels
) -> Asked:
    """The concepts of a corpus on the tokens that have codes, and on as many of dev; `only` some of them."""
    assert evaluation.load_labels is not None, "registered as reading labels"
    dev, eval_ = (only(evaluation.load_labels(split)) for split in ("dev", "eval"))
    batches = evaluation.batches(evaluation.codes_sequences, dev=True)
    documents = np.concatenate([batch.document.reshape(-1).cpu().numpy() for batch in batches])
    return asked(dev, eval_, numbered(documents), numbered(evaluation.document_of_codes().numpy()), wanted)


def activity_of(firing: Mapping[Site, Fired]) -> Activity:
    """What fires, as detectors: so a unit is chosen by what it does where it can be edited."""
    codes = []
    for fired in firing.values():
        indptr = np.concatenate([[0], np.cumsum(np.bincount(fired.token, minlength=fired.n_tokens))])
        units, values = torch.from_numpy(fired.unit), torch.from_numpy(fired.value)
        rows = torch.zeros(fired.n_tokens, 2, dtype=torch.long)
        codes.append(Codes(torch.from_numpy(indptr), units, values, rows, fired.n_units))
    return activity(codes)


def tellers(detection: Detection, fired: Mapping[Site, Fired], least: float, most: int) -> list[list[Teller]]:
    """For each concept up to `most` units, the best on dev first, of dev F1 `least` or more."""
    sites = list(fired)
    bounds = np.cumsum([0, *(one.n_units for one in fired.values())])
    found = []
    for concept in range(detection.chosen.shape[1]):
        f1 = detection.chosen[:, concept]
        few = np.argsort(-f1, kind="stable")[:most]
        of_concept = []
        for unit in few[(f1[few] >= least) & (f1[few] > 0)]:
            at = int(np.searchsorted(bounds, unit, side="right")) - 1
            sign = 1 - 2 * int(detection.detector[unit, concept] % 2)
            scored = float(detection.scored[unit, concept])
            of_concept.append(Teller(sites[at], int(unit - bounds[at]), sign, float(f1[unit]), scored))
        found.append(of_concept)
    return found
