"""Which units are explained: equally many of each firing rate, drawn at random, the same number for every system.

A unit that fires often is easier to explain and has more to score on, and systems differ in how often their units fire.
So units are drawn by strata of density, and figures are weighted to one distribution of firing rates, the same for all
systems: every stratum counts alike (ours). Units with too few contexts are passed over and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from harness.metrics.autointerp.contexts import UnitContexts
from harness.metrics.autointerp.firings import Firings

Key = TypeVar("Key")


@dataclass(frozen=True)
class Drawn:
    """A unit of the sample. weight: its part of a post-stratified mean. firing_weight: its part of a mean over firings:
    its density times the units of its stratum that it stands for."""

    contexts: UnitContexts
    firings: Firings
    column: int
    stratum: int
    weight: float
    firing_weight: float


@dataclass(frozen=True)
class Sample:
    """units in an order that follows from the seed and from where they fire. tried: how many were drawn, with those
    that had too few contexts. outside: share of all units, dead ones too, that are in no stratum. empty: strata without
    a unit in the sample; figures then weigh fewer strata than other systems' do."""

    units: list[Drawn]
    tried: int
    too_few: int
    outside: float
    empty: tuple[int, ...]


def stratum_of(density: np.ndarray, edges: Sequence[float]) -> np.ndarray:
    """Index of the stratum `[edges[i], edges[i + 1])` of every density; −1 outside of all. `[units]`"""
    stratum = np.searchsorted(edges, density, side="right") - 1
    return np.where(stratum >= len(edges) - 1, -1, stratum)


def draw(
    sites: Mapping[Key, Firings],
    n: int,
    edges: Sequence[float],
    contexts_of: Callable[[Key, int], UnitContexts | None],
    generator: np.random.Generator,
) -> Sample:
    """`n` units over all sites, the strata in turn; where a stratum has no more, the others give more."""
    members: list[tuple[Key, int]] = []
    strata: list[np.ndarray] = []
    for key, firings in sites.items():
        members += [(key, column) for column in range(len(firings.units))]
        strata.append(stratum_of(firings.counts / firings.n_tokens, edges))
    stratum = np.concatenate(strata) if strata else np.zeros(0, int)
    waiting = {s: list(generator.permutation(np.flatnonzero(stratum == s))) for s in range(len(edges) - 1)}
    found: dict[int, list[tuple[Key, int, UnitContexts]]] = {s: [] for s in waiting}
    tried = too_few = 0
    while any(waiting.values()) and sum(map(len, found.values())) < n:
        for s, queue in waiting.items():
            while queue and sum(map(len, found.values())) < n:
                key, column = members[queue.pop()]
                contexts = contexts_of(key, column)
                tried += 1
                if contexts is not None:
                    found[s].append((key, column, contexts))
                    break
                too_few += 1
    present = [s for s in found if found[s]]
    units = [
        Drawn(
            contexts,
            sites[key],
            column,
            s,
            weight=1 / (len(present) * len(found[s])),
            firing_weight=contexts.density * float((stratum == s).sum()) / len(found[s]),
        )
        for s in present
        for key, column, contexts in found[s]
    ]
    total = sum(firings.n_units for firings in sites.values())
    inside = int((stratum >= 0).sum())
    return Sample(units, tried, too_few, 1 - inside / max(1, total), tuple(s for s in found if not found[s]))
