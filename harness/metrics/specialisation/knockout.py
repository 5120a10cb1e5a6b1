"""What taking away the units of one domain, or of one concept, costs there and elsewhere.

Units are assigned on dev. As a control, as many other units that fire about as often are taken away in their place.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import torch
from torch import Tensor

from harness.systems.evaluation import Evaluation
from harness.systems.system import Site
from kernels.codes import Codes

Units = Mapping[Site, np.ndarray]


def as_often(chosen: np.ndarray, counts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For each of the `chosen` units another one that fires, none of the chosen, near it in the order of `counts`
    `[units]`; each at most once. Fewer where there are no more."""
    others = np.setdiff1d(np.flatnonzero(counts > 0), chosen)
    others = others[rng.permutation(len(others))]
    others = others[np.argsort(counts[others], kind="stable")]
    found: list[int] = []
    left = others.tolist()
    for unit in chosen[rng.permutation(len(chosen))].tolist():
        if not left:
            break
        place = min(int(np.searchsorted(counts[left], counts[unit])), len(left) - 1)
        found.append(left.pop(place))
    return np.sort(np.array(found, dtype=np.int64))


@torch.no_grad()
def rise(evaluation: Evaluation, runs: list[Units], sequences: int) -> Tensor:
    """Nats above the native model of every target `[runs, targets]`, with each run's units off at every site."""
    system = evaluation.system
    found = []
    for batch in evaluation.batches(min(sequences, evaluation.sequences)):
        targets = batch.input_ids[:, 1:].reshape(-1)

        def nats(targets: Tensor = targets, input_ids: Tensor = batch.input_ids) -> Tensor:
            logits = system.model(input_ids, use_cache=False).logits[:, :-1]
            return torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), targets, reduction="none")

        native = nats()
        without = []
        for units in runs:
            edits = {site: partial(_off, _mask(site, evaluation, of)) for site, of in units.items() if len(of)}
            with system.running(edits, error="keep"):
                without.append(nats() - native)
        found.append(torch.stack(without).cpu())
    return torch.cat(found, 1)


def _mask(site: Site, evaluation: Evaluation, units: np.ndarray) -> Tensor:
    keep = torch.ones(evaluation.system.decomposition[site].n_units, dtype=torch.bool, device=evaluation.system.device)
    keep[torch.as_tensor(units, device=keep.device)] = False
    return keep


def _off(keep: Tensor, codes: Codes) -> Codes:
    return codes.keep(keep[codes.units])
