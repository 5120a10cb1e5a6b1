"""What taking away the units of one domain, or of one concept, costs there and elsewhere.

Units are chosen on dev. As a control, other units of their sites that write as much in all are taken away in their
place: any that fire, since what is asked is whether it matters which.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from harness.metrics.concepts.probes import Probe
from harness.systems.evaluation import Evaluation
from harness.systems.system import Site
from kernels.codes import Codes

Units = Mapping[Site, np.ndarray]
NEAR = 16  # units on either side, in the order of what they write, that a control is drawn from


def like(
    chosen: np.ndarray, size: np.ndarray, rng: np.random.Generator, *, but: np.ndarray | None = None
) -> np.ndarray:
    """For each of the `chosen` units another one near it in the order of `size` `[units]` (0: does not fire), none of
    them twice, none of `but` (default: a unit is only not its own control, and may be another's). Fewer where there
    are no more."""
    order = np.argsort(size, kind="stable")
    order = order[size[order] > 0]
    out = set() if but is None else set(but.tolist())
    found: set[int] = set()
    for unit in chosen[rng.permutation(len(chosen))].tolist():
        place = int(np.searchsorted(size[order], size[unit]))
        near = order[max(0, place - NEAR) : place + NEAR + 1]
        allowed = [other for other in near.tolist() if other != unit and other not in found and other not in out]
        if not allowed:  # all that is near is taken: the nearest of the rest
            rest = [other for other in order.tolist() if other != unit and other not in found and other not in out]
            allowed = sorted(rest, key=lambda other: abs(size[other] - size[unit]))[:1]
        if allowed:
            found.add(allowed[int(rng.integers(len(allowed)))])
    return np.sort(np.array(sorted(found), dtype=np.int64))


def as_often(chosen: np.ndarray, counts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`like`, none of the chosen themselves; counts `[units]`: how often each fires."""
    return like(chosen, counts, rng, but=chosen)


@dataclass(frozen=True)
class Ran:
    """rises `[runs, targets]`: nats above the native model. read: what a probe of concepts on the last stream says
    `[1 + runs, tokens, concepts]`, natively first; None without a probe."""

    rises: Tensor
    read: Tensor | None


@torch.no_grad()
def run(evaluation: Evaluation, runs: Sequence[Units], sequences: int, probe: Probe | None = None) -> Ran:
    """The first `sequences` with each run's units off at every site."""
    system = evaluation.system
    rises: list[Tensor] = []
    read: list[Tensor] = []
    for batch in evaluation.batches(min(sequences, evaluation.sequences)):
        targets = batch.input_ids[:, 1:].reshape(-1)

        def ahead(targets: Tensor = targets, input_ids: Tensor = batch.input_ids) -> tuple[Tensor, Tensor | None]:
            stream: list[Tensor] = []
            with contextlib.ExitStack() as stack:
                if probe is not None:
                    norm: nn.Module = system.model.final_norm()
                    stack.callback(norm.register_forward_hook(lambda _m, _a, y: stream.append(cast(Tensor, y))).remove)
                logits = system.model(input_ids, use_cache=False).logits[:, :-1]
            nats = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), targets, reduction="none")
            return nats, probe.logits(stream[0].flatten(0, 1).float().cpu()) if probe is not None else None

        native, said = ahead()
        without, told = [], [said]
        for units in runs:
            edits = {site: partial(_off, _mask(site, evaluation, of)) for site, of in units.items() if len(of)}
            with system.running(edits, error="keep"):
                nats, said = ahead()
            without.append(nats - native)
            told.append(said)
        rises.append(torch.stack(without).cpu() if without else torch.zeros(0, len(targets)))
        if probe is not None:
            read.append(torch.stack([one for one in told if one is not None]))
    return Ran(torch.cat(rises, 1), torch.cat(read, 1) if read else None)


def _mask(site: Site, evaluation: Evaluation, units: np.ndarray) -> Tensor:
    keep = torch.ones(evaluation.system.decomposition[site].n_units, dtype=torch.bool, device=evaluation.system.device)
    keep[torch.as_tensor(units, device=keep.device)] = False
    return keep


def _off(keep: Tensor, codes: Codes) -> Codes:
    return codes.keep(keep[codes.units])
