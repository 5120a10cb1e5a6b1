"""Who fires together: counts of pairs from the codes, and what they come to against a null (null.py)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.metrics.joint import blockwise
from harness.metrics.joint.firing import Firing
from kernels.threads import parallel

_GRAIN = 64  # units a thread takes at a time, at least: common units and those of small number take longer


@dataclass(frozen=True)
class Meetings:
    """Pairs i < j that met `least` times or more: i, j, n `[pairs]` int32, ordered by (i, j), n exact. distinct and
    n_all: how many pairs met at all, and meetings of all of them, those below `least` counted."""

    i: np.ndarray
    j: np.ndarray
    n: np.ndarray
    least: int
    distinct: int
    n_all: int


def meetings(firing: Firing, least: int = 1) -> Meetings:
    """Counts every pair of units that fires on the same token.

    Costs what meets: one unit after the other with one counter of all units, never units × units. A pair below `least`
    is dropped as soon as its first unit is done, which is when its count is complete: what is kept is exact, and what
    is dropped is exactly the pairs that met less often. Memory is that of the kept pairs.
    """
    ptr, entry = firing.by_unit
    by_token = firing.token[entry]
    parts: list[tuple[int, Any]] = []

    def work(start: int, stop: int) -> None:
        parts.append((start, blockwise.count(firing.indptr, firing.units, ptr, by_token, least, start, stop)))

    parallel(work, firing.n_units, grain=_GRAIN)
    parts.sort(key=lambda part: part[0])
    i, j, n, distinct, total = zip(*(found for _, found in parts), strict=True)
    return Meetings(np.concatenate(i), np.concatenate(j), np.concatenate(n), least, sum(distinct), sum(total))


def usable(firing: Firing, fewest: int, most: float) -> np.ndarray:
    """Mask `[units]` of those that fire on `fewest` tokens or more and on no more than a share `most` of all: a unit
    that always fires is together with everything, and says nothing by it."""
    return (firing.rates >= fewest) & (firing.rates <= most * firing.n_tokens)


def lift(n: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Meetings over what the null expects; 1: as chance has it."""
    return n / expected


def npmi(n: np.ndarray, expected: np.ndarray, tokens: int) -> np.ndarray:
    """Normalised pointwise mutual information against the null: log(n / E) / −log(n / tokens), in [−1, 1] where E is
    that of independence. 1: one never fires without the other; −1: they never meet; 0: they meet on every token."""
    share = n / tokens
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.log(n / expected) / -np.log(share)
    return np.select([n == 0, share < 1], [-1.0, found], 0.0)


def phi(n: np.ndarray, expected: np.ndarray, rate_i: np.ndarray, rate_j: np.ndarray, tokens: int) -> np.ndarray:
    """(n − E) · tokens / √(nᵢ nⱼ (tokens − nᵢ)(tokens − nⱼ)): the correlation of two units firing, less that of the
    null; the ordinary one where E = nᵢ nⱼ / tokens. 0 for a unit that always or never fires."""
    spread = np.sqrt(rate_i * (tokens - rate_i).astype(float)) * np.sqrt(rate_j * (tokens - rate_j).astype(float))
    return np.divide((n - expected) * tokens, spread, out=np.zeros(len(n)), where=spread > 0)
