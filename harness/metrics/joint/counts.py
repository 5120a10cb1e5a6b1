"""Who fires together, and how often they would if only rows and columns were given: from codes alone.

The null: token t fires unit i with p_ti = x_t yᵢ / (1 + x_t yᵢ), fitted so that every token keeps its number of units
and every unit its number of tokens (in expectation), each token then holding exactly its number. With rows of few units
that last condition matters: with exactly 4 of 60 on a token, two units that know nothing of each other meet less often
than independence says. Expected meetings of i and j, to second order in the row's variance (Hájek, 1964):

    E_ij = Σ_t p_ti p_tj [1 − (1 − p_ti)(1 − p_tj) / Σ_l p_tl (1 − p_tl)]

Tokens with equally many units share x_t, so everything is a sum over few groups of tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

_BLOCK = 4096  # units whose meetings with all others are counted at a time


@dataclass(frozen=True)
class Meetings:
    """Pairs i < j that met `least` times or more: i, j, n `[pairs]` int64; n_all: meetings of all pairs, also rare."""

    i: np.ndarray
    j: np.ndarray
    n: np.ndarray
    n_all: int


def meetings(indptr: np.ndarray, units: np.ndarray, n_units: int, least: int = 1) -> Meetings:
    """Counts every pair of units that fires on the same token. indptr `[tokens + 1]`, units `[entries]`.

    Costs what meets: blocks of a sparse product, never units × units. Pairs below `least` are dropped block by block.
    """
    rows = len(indptr) - 1
    fired = sparse.csr_matrix((np.ones(len(units), np.int32), units, indptr), shape=(rows, n_units))
    by_unit = fired.T.tocsr()
    found, total = [], 0
    for begin in range(0, n_units, _BLOCK):
        product = by_unit[begin : begin + _BLOCK] @ fired
        product.sort_indices()
        block = product.tocoo()
        i, j, n = block.row.astype(np.int64) + begin, block.col.astype(np.int64), block.data.astype(np.int64)
        above = i < j
        total += int(n[above].sum())
        kept = above & (n >= least)
        found.append((i[kept], j[kept], n[kept]))
    i, j, n = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return Meetings(i, j, n, total)


@dataclass(frozen=True)
class Null:
    """p `[groups, units]`: how likely each unit is on a token of each group; tokens `[groups]`: how many those are."""

    p: np.ndarray
    tokens: np.ndarray

    def expected(self, i: np.ndarray, j: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Expected meetings of pairs and their variance, `[pairs]` each (tokens taken as independent)."""
        mean, variance = np.zeros(len(i)), np.zeros(len(i))
        for p, n in zip(self.p, self.tokens, strict=True):
            spread = (p * (1 - p)).sum()
            both = p[i] * p[j]
            if spread > 0:  # else nothing is left to chance on these tokens
                both = np.clip(both * (1 - (1 - p[i]) * (1 - p[j]) / spread), 0, 1)
            mean += n * both
            variance += n * both * (1 - both)
        return mean, variance


def fit_null(indptr: np.ndarray, units: np.ndarray, n_units: int, tolerance: float = 1e-6, most: int = 500) -> Null:
    """Fits rows and columns in turn until no expected column sum is off by more than `tolerance` of itself."""
    lengths = np.diff(indptr)
    sizes, tokens = np.unique(lengths[lengths > 0], return_counts=True)
    wanted = np.bincount(units, minlength=n_units).astype(np.float64)  # tokens of each unit
    y = wanted / max(1.0, wanted.sum())
    p = np.zeros((len(sizes), n_units))
    for _ in range(most):
        for group, size in enumerate(sizes):
            p[group] = _row(y, float(size))
        sums = tokens @ p
        off = np.abs(sums - wanted)[wanted > 0] / wanted[wanted > 0]
        if not len(off) or off.max() < tolerance:
            break
        odds = np.divide(wanted, sums, out=np.zeros_like(wanted), where=sums > 0)
        y = y * odds
    return Null(p, tokens)


def _row(y: np.ndarray, size: float) -> np.ndarray:
    """x y / (1 + x y) with x such that the sum is `size`, by bisection on log x."""
    alive = y > 0
    if size >= alive.sum():
        return alive.astype(np.float64)
    low, high = -60.0, 60.0
    for _ in range(80):
        middle = (low + high) / 2
        xy = np.exp(middle) * y
        if (xy / (1 + xy)).sum() < size:
            low = middle
        else:
            high = middle
    xy = np.exp((low + high) / 2) * y
    return xy / (1 + xy)


def lift(n: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Meetings over what the null expects; 1: as chance has it."""
    return n / expected


def npmi(n: np.ndarray, expected: np.ndarray, tokens: int) -> np.ndarray:
    """Normalised pointwise mutual information against the null: log(n / E) / −log(n / tokens), in [−1, 1]."""
    share = n / tokens
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(share < 1, np.log(n / expected) / -np.log(share), 0.0)
