"""The joint against the product of the marginals: how much the units of a group say about each other.

Total correlation of a group, Σᵢ H(Xᵢ) − H(X₁ … X_m) of who fires, and the information of a pair split exactly into what
is in firing (S = 1 where the unit fires) and in magnitudes (A = the value's quantile bin, 0 where silent):

    I(A;B) = I(S_A;S_B) + I(S_A;B|S_B) + I(A;S_B|S_A) + I(A;B|S_A,S_B)

Counted information is never negative, so each figure stands against draws of the null (null.curveball), which also
keeps what a document is about. It is information between units: a common cause gives it without any joint meaning.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.metrics.joint.firing import Firing

PARTS = ("on_on", "on_value", "value_on", "value_value")


def entropy(counts: np.ndarray) -> np.ndarray:
    """Bits, of counts `[..., cells]`, as counted (no correction); 0 where there is nothing."""
    counts = np.asarray(counts, np.float64)
    total = counts.sum(-1)
    plain = np.log2(np.maximum(counts, 1)) * counts  # cells of 0 and 1 add nothing
    return np.where(total > 0, np.log2(np.maximum(total, 1)) - plain.sum(-1) / np.maximum(total, 1), 0)


def total_correlation(firing: Firing, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bits a token, as counted, of groups `[n, m]` of different units: `[n]`; on how many tokens two or more of the
    group fire `[n]`. m ≤ 16: all 2^m patterns are counted; ValueError beyond."""
    n, m = groups.shape
    if m > 16:
        raise ValueError(f"groups of {m} units have 2^{m} patterns; at most 16 units, nearest: 16")
    out, together = np.empty(n), np.empty(n, np.int64)
    token = firing.token
    for row, group in enumerate(groups):
        tokens = [token[firing.column(unit)] for unit in group]
        at, place, firing_there = np.unique(np.concatenate(tokens), return_inverse=True, return_counts=True)
        bit = np.repeat(1 << np.arange(m), [len(part) for part in tokens])
        pattern = np.bincount(place, bit, minlength=len(at)).astype(np.int64)
        counts = np.bincount(pattern, minlength=1 << m)
        counts[0] = firing.n_tokens - len(at)
        rates = np.array([len(part) for part in tokens])
        single = entropy(np.stack([rates, firing.n_tokens - rates], -1))
        out[row], together[row] = single.sum() - entropy(counts), (firing_there > 1).sum()
    return out, together


def value_bins(firing: Firing, bins: int) -> np.ndarray:
    """Which quantile bin of its unit's values every entry is in, from 1. Equal values share a bin. `[entries]` int64"""
    order = np.lexsort((firing.values, firing.units))
    unit, value = firing.units[order], firing.values[order]
    opens = np.ones(len(order), bool)
    opens[1:] = (unit[1:] != unit[:-1]) | (value[1:] != value[:-1])
    ptr = firing.by_unit[0]
    first = np.maximum.accumulate(np.where(opens, np.arange(len(order)), 0))  # of the run of equal values
    rank = first - ptr[unit]
    out = np.empty(len(order), np.int64)
    out[order] = 1 + rank * bins // firing.rates[unit]
    return out


@dataclass(frozen=True)
class Split:
    """parts `[pairs, 4]`, bits a token, in the order of PARTS (a's first); together `[pairs]`: tokens with both."""

    parts: np.ndarray
    together: np.ndarray


def tables(firing: Firing, pairs: np.ndarray, bin_of_entry: np.ndarray, bins: int) -> np.ndarray:
    """Tokens by bin of a and of b, of pairs `[pairs, 2]` of different units: `[pairs, bins + 1, bins + 1]`.

    Bin 0: silent."""
    token = firing.token
    out = np.zeros((len(pairs), bins + 1, bins + 1), np.int64)
    for row, (a, b) in enumerate(pairs):
        of_a, of_b = firing.column(a), firing.column(b)
        _, in_a, in_b = np.intersect1d(token[of_a], token[of_b], assume_unique=True, return_indices=True)
        bin_a, bin_b = bin_of_entry[of_a], bin_of_entry[of_b]
        table = np.zeros((bins + 1, bins + 1), np.int64)
        np.add.at(table, (bin_a[in_a], bin_b[in_b]), 1)
        table[:, 0] = np.bincount(bin_a, minlength=bins + 1) - table.sum(1)
        table[0, :] = np.bincount(bin_b, minlength=bins + 1) - table.sum(0)
        table[0, 0] = 0
        table[0, 0] = firing.n_tokens - table.sum()
        out[row] = table
    return out


def split(table: np.ndarray) -> Split:
    """The exact split of tables `[pairs, bins + 1, bins + 1]`."""
    table = np.asarray(table, np.int64)
    on = np.stack([table[:, 0], table[:, 1:].sum(1)], 1)  # [pairs, 2, bins + 1]: of a only whether it fires
    off = np.stack([table[:, :, 0], table[:, :, 1:].sum(2)], 2)  # [pairs, bins + 1, 2]: of b
    both = np.stack([off[:, 0], off[:, 1:].sum(1)], 1)
    whole, a_on, b_on, bare = (_mutual(part) for part in (table, on, off, both))
    parts = np.stack([bare, a_on - bare, b_on - bare, whole - a_on - b_on + bare], 1)
    return Split(parts, both[:, 1, 1])


def _mutual(table: np.ndarray) -> np.ndarray:
    """Mutual information of tables `[n, x, y]`, bits."""
    flat = table.reshape(len(table), -1)
    return entropy(table.sum(2)) + entropy(table.sum(1)) - entropy(flat)
