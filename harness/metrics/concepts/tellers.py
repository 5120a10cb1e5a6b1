"""Which units tell which concept, for metrics that then do something to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from harness.metrics.concepts.activity import Activity, activity
from harness.metrics.concepts.detection import detect
from harness.metrics.concepts.tokens import Asked, Wanted, asked, numbered
from harness.metrics.joint.pairs import Fired
from harness.systems.evaluation import Evaluation
from harness.systems.system import Site
from kernels.codes import Codes


@dataclass(frozen=True)
class Teller:
    """A unit and the F1, on dev, with which its best threshold tells the concept."""

    site: Site
    unit: int
    f1: float


def concepts_of(evaluation: Evaluation, wanted: Wanted) -> Asked:
    """The concepts of a corpus on the tokens that have codes, and on as many of dev."""
    assert evaluation.load_labels is not None, "registered as reading labels"
    documents = []
    for dev in (True, False):
        batches = evaluation.batches(evaluation.codes_sequences, dev=dev)
        documents.append(numbered(np.concatenate([b.document.reshape(-1).cpu().numpy() for b in batches])))
    return asked(evaluation.load_labels("dev"), evaluation.load_labels("eval"), documents[0], documents[1], wanted)


def tellers(dev: Mapping[Site, Fired], asking: Asked, least: float) -> list[list[Teller]]:
    """Of every concept the units that tell it with F1 `least` or more, the best first."""
    of_site = {site: detect(own, asking.dev, own, asking.dev).chosen for site, own in _activities(dev).items()}
    found: list[list[Teller]] = []
    for concept in range(len(asking.concepts)):
        good = [
            Teller(site, int(unit), float(f1[unit, concept]))
            for site, f1 in of_site.items()
            for unit in np.flatnonzero(f1[:, concept] >= least)
        ]
        found.append(sorted(good, key=lambda one: -one.f1))
    return found


def _activities(dev: Mapping[Site, Fired]) -> dict[Site, Activity]:
    found = {}
    for site, one in dev.items():
        order = np.lexsort((one.unit, one.token))
        indptr = np.concatenate([[0], np.cumsum(np.bincount(one.token, minlength=one.n_tokens))])
        units, values = (torch.from_numpy(column[order]) for column in (one.unit.astype(np.int64), one.value))
        rows = torch.zeros(one.n_tokens, 2, dtype=torch.long)
        found[site] = activity([Codes(torch.from_numpy(indptr), units, values, rows, one.n_units)])
    return found
