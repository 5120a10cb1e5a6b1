"""Which units are asked, and in which contexts: equally many of every site, of those that fire often enough."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from harness.corpus.stored import PackedSplit
from harness.metrics.joint.pairs import Fired
from harness.metrics.joint.passes import by_sequence
from harness.systems.prefix import Prefix
from harness.systems.system import Site, System


@dataclass(frozen=True)
class Sample:
    """units: (site, unit) of every unit drawn. Of every context `[contexts]`, unit after unit, equally many each:
    unit: its place in `units`; token: its place in the split; value: the unit's coefficient there."""

    units: tuple[tuple[Site, int], ...]
    unit: np.ndarray
    token: np.ndarray
    value: np.ndarray

    def __len__(self) -> int:
        return len(self.unit)


def draw(fired: Mapping[Site, Fired], units: int, contexts: int, rng: np.random.Generator) -> Sample:
    """About `units` units in all, those of a site that fire on `contexts` tokens or more having equal chances, with
    `contexts` of their tokens each."""
    chosen: list[tuple[Site, int]] = []
    columns: list[tuple[np.ndarray, np.ndarray]] = []
    for index, (site, found) in enumerate(fired.items()):
        wanted = units // len(fired) + (index < units % len(fired))
        often = np.flatnonzero(np.bincount(found.unit, minlength=found.n_units) >= contexts)
        order = np.argsort(found.unit, kind="stable")
        starts = np.searchsorted(found.unit[order], np.arange(found.n_units + 1))
        for unit in np.sort(rng.choice(often, min(wanted, len(often)), replace=False)).tolist():
            entries = rng.choice(order[starts[unit] : starts[unit + 1]], contexts, replace=False)
            chosen.append((site, unit))
            columns.append((found.token[entries], found.value[entries]))
    unit = np.repeat(np.arange(len(chosen)), contexts)
    if not chosen:
        return Sample((), unit, np.zeros(0, np.int64), np.zeros(0, np.float32))
    token, value = (np.concatenate(column) for column in zip(*columns, strict=True))
    return Sample(tuple(chosen), unit, token, value)


@dataclass(frozen=True)
class Chunk:
    """Contexts of one sequence: prefix: the sequence as the system runs it natively; which: places in the sample;
    positions `[n]`."""

    prefix: Prefix
    which: np.ndarray
    positions: Tensor


def chunks(system: System, split: PackedSplit, token: np.ndarray, variants: int) -> Iterator[Chunk]:
    """Contexts at `token` (places in the split) by sequence, as many at once as fit with so many variants each."""
    for prefix, which in by_sequence(system, split, token, variants):
        yield Chunk(prefix, which, torch.as_tensor(token[which] % split.length, device=system.device))
