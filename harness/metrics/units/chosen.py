"""Which units are described: those that metrics speak of, then a sample of those that fire."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from harness.metrics.autointerp.firings import Firings
from harness.metrics.units.left import Left
from harness.metrics.units.reports import Why

MOST_EXPLAINED = 200  # of a system; more would make a page that nobody leafs through
STRATA = 4
_SEED = 0


def choose(sites: Mapping[str, Firings], left: Left, a_site: int) -> dict[str, dict[int, tuple[Why, ...]]]:
    """Site → column of its firings → why. Explained units, both units of every strong pair, and then others until the
    site has `a_site`, equally many of each quarter of its firing rates. A unit that never fires has no column."""
    explained = list(left.explained)
    if len(explained) > MOST_EXPLAINED:  # evenly: the file has them by firing rate
        places = np.linspace(0, len(explained) - 1, MOST_EXPLAINED).round().astype(int)
        explained = [explained[place] for place in places]
    in_pairs = [unit for pair in left.pairs for unit in (pair.a, pair.b)]
    named: list[tuple[Why, list[tuple[str, int]]]] = [("autointerp", explained), ("pair", in_pairs)]
    found: dict[str, dict[int, tuple[Why, ...]]] = {}
    for place, (site, firings) in enumerate(sites.items()):
        column_of = {int(unit): column for column, unit in enumerate(firings.units)}
        chosen: dict[int, tuple[Why, ...]] = {}
        for why, units in named:
            for column in dict.fromkeys(column_of[u] for at, u in units if at == site and u in column_of):
                chosen[column] = (*chosen.get(column, ()), why)
        generator = np.random.default_rng([_SEED, place])
        for column in _sample(firings.counts, set(chosen), a_site - len(chosen), generator):
            chosen[column] = ("sample",)
        found[site] = chosen
    return found


def _sample(counts: np.ndarray, taken: set[int], wanted: int, generator: np.random.Generator) -> list[int]:
    """Columns, from each stratum of `counts` `[columns]` in turn. Columns stand in an order that their firings decide,
    so that the numbers of units do not decide who is drawn."""
    order = np.argsort(counts, kind="stable")
    waiting = [
        [int(c) for c in generator.permutation(part) if c not in taken] for part in np.array_split(order, STRATA)
    ]
    found: list[int] = []
    while len(found) < wanted and any(waiting):
        for queue in waiting:
            if queue and len(found) < wanted:
                found.append(queue.pop())
    return found
