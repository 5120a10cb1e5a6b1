"""How often units would fire together if only rows and columns were given: the null for sparse rows.

Token t fires unit i with p_ti = x_t yᵢ / (1 + x_t yᵢ), fitted so that (in expectation) every token keeps its number of
units and every unit its number of tokens. Then a token holds exactly its number: with few units a token that matters,
since what fires crowds out the others (exactly 4 of 60: plain independence flags half of all pairs). Expected meetings,
to second order (Hájek, 1964):

    E_ij = Σ_t s_t p_ti p_tj [1 − (1 − p_ti)(1 − p_tj) / Σ_l p_tl (1 − p_tl)]

A token of k units holds k (k − 1) / 2 meetings whatever they are. The formula alone has slightly more (0.5% at 4 of 60,
two where k = 1 has none); s_t, our addition, makes the sum over pairs right.

Tokens with equally many units share x_t, so all of it is a sum over few groups of tokens: it costs pairs × groups.
What it leaves out: tokens of a document are alike. `by_document` and `curveball(within documents)` are for that.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from harness.metrics.joint import blockwise
from harness.metrics.joint.firing import Firing
from kernels.threads import parallel

_GROUPS = 48  # of tokens, at most; beyond it neighbouring numbers of units share a group and take their mean
_FARTHEST = 40.0  # log odds of a unit that fires on every token (or a token that fires every unit)
_ROUNDS = 20  # of curveball trades, in each of which every token takes part once


@dataclass(frozen=True)
class Null:
    """p `[units, groups]`: how likely each unit is on a token of each group; tokens `[groups]`: how many those are;
    size `[groups]`: units on such a token; scale `[groups]`: s above; group `[all tokens]`: of every token, −1 where
    nothing fires."""

    p: np.ndarray
    tokens: np.ndarray
    size: np.ndarray
    scale: np.ndarray
    group: np.ndarray

    def expected(self, i: np.ndarray, j: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Expected meetings of pairs and their variance, `[pairs]` float64 each.

        The variance is of Σ_t (π_t over tokens taken as independent) less what is linear in how often i and j fire,
        since that is given: Σ π(1 − π) − bᵀ C⁻¹ b, b the covariance of meeting with firing and C that of firing. With
        one group and independent units it is the hypergeometric's.
        """
        mean, variance = np.empty(len(i)), np.empty(len(i))
        spread = (self.p * (1 - self.p)).sum(0)
        own = (self.p * (1 - self.p)) @ self.tokens
        args = self.p, self.tokens, spread, self.scale, own, i, j, mean, variance
        parallel(blockwise.expected, len(i), *args, grain=4096)
        return mean, variance

    def each(self, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        """How likely pairs are to meet on one token of each group: `[pairs, groups]`."""
        pi, pj = self.p[i], self.p[j]
        spread = (self.p * (1 - self.p)).sum(0)
        crowding = np.divide((1 - pi) * (1 - pj), spread, out=np.zeros_like(pi), where=spread > 0)
        return np.maximum(np.where(spread > 0, self.scale, 1) * pi * pj * (1 - crowding), 0)


def fit(firing: Firing, tolerance: float = 1e-6, most: int = 500) -> Null:
    """Newton's method on rows and columns in turn, in log odds, until no expected column sum is off by more than
    `tolerance` of itself."""
    lengths = np.diff(firing.indptr)
    group, size, meet, tokens = _groups(lengths)
    rates = firing.rates.astype(np.float64)
    alive = rates > 0
    wanted = rates[alive]  # of the units that fire
    total = tokens.sum()
    with np.errstate(divide="ignore"):
        unit = np.clip(np.log(wanted / (total - wanted)), -_FARTHEST, _FARTHEST)[:, None]
        row = np.log(size / max(1e-9, rates.sum() / max(total, 1)))[None, :]
    p = _logistic(unit + row)
    for _ in range(most):
        for _ in range(2):
            row = row + _step(size - p.sum(0), (p * (1 - p)).sum(0))[None, :]
            p = _logistic(np.clip(unit + row, -_FARTHEST, _FARTHEST))
        off = wanted - p @ tokens
        if not len(off) or np.abs(off / wanted).max() < tolerance:
            break
        unit = unit + _step(off, (p * (1 - p)) @ tokens)[:, None]
        p = _logistic(np.clip(unit + row, -_FARTHEST, _FARTHEST))
    every = np.zeros((firing.n_units, len(size)))
    every[alive] = p
    spread = (every * (1 - every)).sum(0)
    squares = ((every * (1 - every)) ** 2).sum(0)
    over = np.divide(squares, spread, out=np.zeros_like(spread), where=spread > 0)
    formula = size**2 - (every**2).sum(0) - spread + over  # twice its meetings of a token, over all pairs
    scale = np.divide(meet, formula, out=np.zeros_like(spread), where=formula > 0)
    return Null(every, tokens, size, scale, group)


def _step(off: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """A Newton step that goes no farther than 1 in log odds: beyond, the slope is another."""
    return np.clip(off / np.maximum(slope, 1e-12), -1, 1)


def _logistic(odds: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-odds))


def _groups(lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Tokens by their number of units k: group of every token; of each group the means of k and of k (k − 1), and how
    many tokens."""
    found, label, many = np.unique(lengths, return_inverse=True, return_counts=True)
    merged = np.arange(len(found))
    if (found > 0).sum() > _GROUPS:
        # Of about equally many tokens each. Tokens with no unit or one are no part of it: they meet exactly never.
        free = found > 1
        share = np.cumsum(many * free) / max(1, (many * free).sum())
        merged = np.where(free, 2 + np.ceil(share * (_GROUPS - 1)).astype(int), found)
        merged = np.unique(merged, return_inverse=True)[1]
    group = merged[label]
    tokens = np.bincount(group)
    size = np.bincount(group, lengths) / tokens
    meet = np.bincount(group, lengths * (lengths - 1.0)) / tokens
    if len(size) and size[0] == 0:
        group, tokens, size, meet = group - 1, tokens[1:], size[1:], meet[1:]
    return group, size, meet, tokens.astype(np.float64)


def p_values(n: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Two-sided, of counts `[pairs]`: twice the smaller tail of the binomial of this mean and variance (a Poisson where
    they are equal). A normal's tails are far too thin at the small expectations most pairs have.

    Counts within one standard deviation get 1; where nothing is left to chance so does every count.
    """
    from scipy.special import betainc, gammainc

    out = np.ones(len(n))
    far = (np.abs(n - mean) > np.sqrt(variance)) & (variance > 0) & (mean > 0)
    n, mean, variance = n[far].astype(np.float64), mean[far], variance[far]
    chance = 1 - variance / mean
    poisson = chance < 1e-4  # what the binomial then is; also where the variance exceeds the mean
    chance = np.where(poisson, 0.5, chance)
    trials = np.maximum(mean / chance, n + 1e-3)  # not a whole number: the tails are defined all the same
    # P(count ≥ n) and P(count ≤ n).
    met = np.maximum(n, 1e-300)  # at 0 the functions are not defined, and their limit is 1
    above = np.where(poisson, gammainc(met, mean), betainc(met, trials - n + 1, chance))
    below = np.where(poisson, 1 - gammainc(n + 1, mean), betainc(trials - n, n + 1, 1 - chance))
    out[far] = np.minimum(1, 2 * np.minimum(above, below))
    return out


def discoveries(p: np.ndarray, tested: int, level: float = 0.05) -> np.ndarray:
    """Mask `[pairs]` by Benjamini–Hochberg over `tested` pairs, those that are not listed counted with p = 1.

    So pairs that were pruned for having met too rarely are tested and not found, and what is found is no selection.
    """
    from statsmodels.stats.multitest import multipletests

    if not len(p):
        return np.zeros(0, bool)
    return multipletests(np.minimum(1, p * (tested / len(p))), alpha=level, method="fdr_bh")[0]


def by_document(firing: Firing, null: Null, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Meetings and expected meetings of pairs `[pairs, 2]` in each document, `[pairs, documents]`; the documents.

    Sums over documents are n and E; for a bootstrap of documents, with the null as it was fitted.
    """
    documents, of_token = np.unique(firing.document, return_inverse=True)
    fired = null.group >= 0
    shape = len(documents), len(null.size)
    tokens = np.zeros(shape)
    np.add.at(tokens, (of_token[fired], null.group[fired]), 1)
    mean = null.each(pairs[:, 0], pairs[:, 1]) @ tokens.T
    met = np.zeros((len(pairs), len(documents)))
    for row, (a, b) in enumerate(pairs):
        met[row] = np.bincount(of_token[firing.together(a, b)], minlength=len(documents))
    return met, mean, documents


def curveball(firing: Firing, rng: np.random.Generator, *, within_documents: bool) -> Firing:
    """A draw of the null: the same number of units on every token and of tokens of every unit, otherwise at random
    (Strona et al., 2014); within_documents: also the same number of tokens of every unit in every document.

    Values stay with their unit (and document) and are permuted over its tokens.
    """
    units, entry = firing.units.copy(), np.arange(len(firing.units))
    label = firing.document if within_documents else np.zeros(firing.n_tokens, np.int64)
    for _ in range(_ROUNDS):
        order = np.lexsort((rng.random(firing.n_tokens), label))
        blockwise.trade(firing.indptr, units, entry, order, label, rng)
    moved = replace(firing, units=units, values=firing.values[entry])
    of_entry = label[moved.token]
    there = np.lexsort((units, of_entry))
    mixed = np.lexsort((rng.random(len(units)), units, of_entry))
    values = np.empty_like(moved.values)
    values[there] = moved.values[mixed]
    return replace(moved, values=values)
