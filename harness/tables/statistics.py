"""Intervals for the figures of a table: a bootstrap over evaluation documents, and a t interval over seeds above it.

Resample b draws the same documents in every system and seed (same number of documents, same seed of the generator, same
order of documents), so a difference between two systems is taken on the same text: Miller, arXiv 2411.00640, section 4.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats
from scipy.optimize import root_scalar

from harness.tables.measurement import Measurement

N_RESAMPLES = 1000
_CHUNK = 4_000_000  # draws held at once: 32 MB


@dataclass(frozen=True)
class Interval:
    """A figure with the ends of its interval; None, None where nothing was resampled. p: two-sided, of the figure being
    0; None with one seed."""

    value: float
    low: float | None
    high: float | None
    p: float | None = None


def _weights(n: int, n_resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Multinomial counts `[rows, n]` float64, in chunks of resamples; how they are cut does not change them."""
    generator = np.random.default_rng([seed, n])
    rows = max(1, _CHUNK // n)
    for start in range(0, n_resamples, rows):
        size = min(rows, n_resamples - start)
        draws = generator.integers(0, n, size=(size, n))
        draws += np.arange(size)[:, None] * n  # one bincount for the whole chunk
        yield np.bincount(draws.ravel(), minlength=size * n).reshape(size, n).astype(np.float64)


def resampled_sums(columns: np.ndarray, n_resamples: int = N_RESAMPLES, seed: int = 0) -> np.ndarray:
    """Column sums `[n_resamples, c]` (float64) of `columns` `[documents, c]` on resampled documents.

    For figures that are no plain ratio (explained variance has the square of a sum in it). Raises ValueError on empty
    input.
    """
    columns = np.asarray(columns, np.float64)
    if columns.ndim != 2 or columns.shape[0] == 0:
        raise ValueError(f"columns {columns.shape} must be [documents, c] with at least one document")
    return np.concatenate([weights @ columns for weights in _weights(columns.shape[0], n_resamples, seed)])


def document_bootstrap(
    numerator: np.ndarray, denominator: np.ndarray, n_resamples: int = N_RESAMPLES, seed: int = 0
) -> np.ndarray:
    """Replicates `[n_resamples]` (float64) of `sum(numerator) / sum(denominator)` on resampled documents.

    `numerator`, `denominator` `[documents]`: e.g. bits and bytes of each document. The ratio of sums is resampled, not
    the mean of ratios, so a long document counts as often as it has bytes. A resample whose denominator is 0 gives NaN,
    which `interval` leaves out. Raises ValueError on empty or unequal inputs.
    """
    num, den = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    if num.ndim != 1 or num.shape != den.shape or num.size == 0:
        raise ValueError(f"numerator {num.shape} and denominator {den.shape} must be one equal, non-empty dimension")
    resampled = resampled_sums(np.stack([num, den], axis=1), n_resamples, seed)  # [n_resamples, 2]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(resampled[:, 1] != 0, resampled[:, 0] / resampled[:, 1], np.nan)


def unit_bootstrap(
    values: np.ndarray, weights: np.ndarray | None = None, n_resamples: int = N_RESAMPLES, seed: int = 0
) -> np.ndarray:
    """Replicates `[n_resamples]` of the (weighted) mean of `values` `[units]` on resampled units.

    For figures that documents cannot resample without bias: fewer distinct documents make more units look dead. Units
    of two systems are not the same units, so differences of such figures gain nothing from pairing, and lose nothing.
    """
    values = np.asarray(values, np.float64)
    weights = np.ones_like(values) if weights is None else np.asarray(weights, np.float64)
    return document_bootstrap(values * weights, weights, n_resamples, seed)


def proportion_bootstrap(flags: np.ndarray, n_resamples: int = N_RESAMPLES, seed: int = 0) -> np.ndarray:
    """What `unit_bootstrap` gives of `flags` `[units]` bool, drawn as what it is: a binomial. Of a million units too.

    Nothing is paired: resample b of one system has nothing to do with resample b of another.
    """
    n = len(flags)
    return np.random.default_rng([seed, n]).binomial(n, np.mean(flags), n_resamples) / n


def _unbiased(replicates: np.ndarray, value: float) -> np.ndarray:
    """The replicates, moved by twice the bias that they show.

    A figure that is no plain ratio (explained variance) is biased on few documents, and its replicates are biased as
    much again: on 5 to 16 documents the figure then sits at an end of its own interval. The mean replicate minus the
    figure estimates the bias of one step; what is wanted lies one such step on the other side of the figure.
    """
    finite = replicates[np.isfinite(replicates)]
    return replicates - 2 * (finite.mean() - value) if finite.size and np.isfinite(value) else replicates


def _ends(replicates: np.ndarray, level: float) -> tuple[float | None, float | None]:
    finite = replicates[np.isfinite(replicates)]
    if finite.size == 0:
        return None, None
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def interval(
    replicates_by_seed: Sequence[np.ndarray | None], values_by_seed: Sequence[float], level: float = 0.95
) -> Interval:
    """Mean over seeds with its interval, corrected for the bias of few documents. Deterministic.

    One seed: percentiles of the resampled documents, which says nothing of other seeds. None, None where there are no
    replicates either.

    Several seeds are read on the same documents. Their values differ by seed alone, s² in their variance; what all of
    them share, the documents' own error V, is what the replicates of their mean vary by, less what s² holds of it
    already. The half-width is q √(s²/n + V), and q the mean of t (n − 1 degrees of freedom) and z, each weighted by its
    part of that variance (Cochran 1964, for two means of unequal variance; ours: what the two parts are). Without
    replicates V is 0. The percentile bootstrap over seeds covers 68, 80 and 86% at 2, 3 and 5 seeds where it says 95;
    this one 94 to 98, and up to 99 at 2 seeds (tests/harness/tables/test_statistics.py).
    """
    values = np.asarray(values_by_seed, np.float64)
    if values.size == 0 or len(replicates_by_seed) != values.size:
        raise ValueError(f"{values.size} values and {len(replicates_by_seed)} sets of replicates: one each per seed")
    value = float(values[0] + (values - values[0]).mean())
    known = [r for r in replicates_by_seed if r is not None]
    moved = None
    if len(known) == values.size:
        moved = np.stack([_unbiased(np.asarray(r, np.float64), v) for r, v in zip(known, values, strict=True)])
    if values.size == 1:
        low, high = (None, None) if moved is None else _ends(moved[0], level)
        return Interval(value, low, high)
    n, spread = values.size, float((values - values[0]).std(ddof=1))
    of_seeds, of_documents, centre = spread**2 / n, 0.0, value
    if moved is not None:
        moved = moved[:, np.isfinite(moved).all(0)]
        if moved.shape[1] < 2:
            return Interval(value, None, None)
        centre = float(moved.mean())
        alone = float((moved - values[:, None]).var(0, ddof=1).mean()) / n  # of seed and document together
        of_documents = max(0.0, float(moved.mean(0).var()) - alone)
    both = of_seeds + of_documents

    def half(share: float) -> float:
        if both == 0.0:
            return 0.0
        parts = stats.t.ppf(share, n - 1) * of_seeds + stats.norm.ppf(share) * of_documents
        return float(parts) / math.sqrt(both)

    width = half((1 + level) / 2)
    return Interval(value, centre - width, centre + width, _p_value(half, abs(centre)))


def _p_value(half: Callable[[float], float], distance: float) -> float:
    """The smallest 1 − level at which the interval no longer reaches 0; half(share) its half-width."""
    if half(0.975) == 0.0:
        return 0.0 if distance > 0 else 1.0
    low, high = 0.5, 1 - 1e-12
    if half(high) <= distance:
        return 2 * (1 - high)
    return 2 * (1 - root_scalar(lambda share: half(share) - distance, bracket=(low, high)).root)


def paired_difference(a: Sequence[Measurement], b: Sequence[Measurement], level: float = 0.95) -> Interval:
    """Interval of a − b for one figure of two systems, each a list over seeds, on the same document resamples.

    Equal seed counts are paired seed by seed (a dictionary row shares its subject's seed); a system with one seed, such
    as an n-gram reference, is paired with every seed of the other. Raises ValueError where the figures are not the same
    figure, or their seeds cannot be paired.
    """
    if not a or not b:
        raise ValueError("a difference needs at least one seed on each side")
    kinds = {(m.name, m.unit, m.version) for m in (*a, *b)}
    if len(kinds) != 1:
        raise ValueError(f"not the same figure: {sorted(kinds)}")
    if len(a) != len(b) and 1 not in (len(a), len(b)):
        raise ValueError(f"{a[0].name}: {len(a)} seeds cannot be paired with {len(b)}")
    n = max(len(a), len(b))
    pairs = list(zip(list(a) * (n // len(a)), list(b) * (n // len(b)), strict=True))
    replicates = [
        x.replicates - y.replicates if x.replicates is not None and y.replicates is not None else None for x, y in pairs
    ]
    return interval(replicates, [x.value - y.value for x, y in pairs], level)
