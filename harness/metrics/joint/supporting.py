"""What the codes alone show of pairs, against the null of counts.py. It decides nothing: units are functions of one
input, so meeting more often than chance may be a common cause."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import norm
from statsmodels.stats.multitest import multipletests

from harness.measurement import Measurement
from harness.metrics.joint.counts import fit_null, lift, meetings, npmi

if TYPE_CHECKING:
    from harness.evaluation import Evaluation
    from harness.metrics.joint import Options

LEAST = 5  # expected meetings of a pair that is tested: below, the normal approximation of its count is poor


def supporting(evaluation: Evaluation, options: Options) -> list[Measurement]:
    """Over pairs of the stored codes that are expected to meet at least LEAST times, the `active` strongest units of a
    token firing:

    - together_more, together_less: share of tested pairs that meet more, or less, than the null has it (two-sided
      normal test, Benjamini–Hochberg at 5% over all of a site's tested pairs). Tokens of a document are not
      independent, so with natural text these shares say how clustered firing is, not how many pairs are real;
    - lift: Σ meetings / Σ expected over the tested pairs that met more often; npmi: their mean, meetings as weights;
    - tested_pairs: how many were tested, over all sites.

    Pairs that never met are tested too where they are expected to.
    """
    more = less = tested = 0
    met = expected_met = weighted = 0.0
    for site in evaluation.system.sites:
        indptr, units, n_units = strongest(evaluation, site, options.active)
        tokens = len(indptr) - 1
        null = fit_null(indptr, units, n_units)
        i, j = _likely_pairs(null.p, null.tokens)
        if not len(i):
            continue
        found = meetings(indptr, units, n_units)
        n = _looked_up(found.i * n_units + found.j, found.n, i * n_units + j)
        mean, variance = null.expected(i, j)
        kept = (mean >= LEAST) & (variance > 0)
        n, mean, variance = n[kept], mean[kept], variance[kept]
        if not len(n):
            continue
        z = (n - mean) / np.sqrt(variance)
        significant = multipletests(2 * norm.sf(np.abs(z)), alpha=0.05, method="fdr_bh")[0]
        tested += len(n)
        more += int((significant & (z > 0)).sum())
        less += int((significant & (z < 0)).sum())
        above = significant & (z > 0)
        met += float(n[above].sum())
        expected_met += float(mean[above].sum())
        weighted += float((n[above] * npmi(n[above], mean[above], tokens)).sum())
    nothing = "no pair is expected to meet often enough to be tested" if not tested else None
    never = nothing or ("no pair meets more often than chance" if not more else None)
    share = lambda count: count / tested if tested else float("nan")  # noqa: E731
    figure = lambda name, value, unit, reason: Measurement(  # noqa: E731
        f"joint/{name}", value, unit, "none", 1, reason=reason
    )
    return [
        figure("together_more", share(more), "share of tested pairs", nothing),
        figure("together_less", share(less), "share of tested pairs", nothing),
        figure("lift", float(lift(np.array(met), np.array(expected_met))) if more else float("nan"), "", never),
        figure("npmi", weighted / met if more else float("nan"), "", never),
        figure("tested_pairs", float(tested), "pairs", None),
    ]


def strongest(evaluation: Evaluation, site, active: int) -> tuple[np.ndarray, np.ndarray, int]:
    """The `active` strongest units of every token at a site: indptr `[tokens + 1]`, units `[entries]`, n_units."""
    encoded = evaluation.load_codes(site)
    codes = encoded.codes
    token = codes.token_of_entry().numpy()
    order = np.lexsort((codes.units.numpy(), -encoded.strengths.numpy(), token))
    place = np.arange(len(order)) - codes.indptr.numpy()[token[order]]  # rank by strength within the token
    kept = order[place < active]
    kept = kept[np.lexsort((codes.units.numpy()[kept], token[kept]))]
    indptr = np.concatenate([[0], np.cumsum(np.bincount(token[kept], minlength=codes.n_tokens))])
    return indptr, codes.units.numpy()[kept], codes.n_units


def _likely_pairs(p: np.ndarray, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs i < j that independence expects to meet LEAST times at least: only they can be tested."""
    density = np.sqrt((tokens[:, None] * p**2).sum(0))  # Σ_t p_ti p_tj ≤ density_i · density_j (Cauchy–Schwarz)
    order = np.argsort(-density)
    sorted_density = density[order]
    # For every unit, how many of the (descending) others are dense enough with it.
    enough = np.searchsorted(-sorted_density, -LEAST / np.maximum(sorted_density, 1e-300), side="right")
    first = np.repeat(np.arange(len(order)), np.maximum(0, enough - np.arange(len(order)) - 1))
    starts = np.concatenate([[0], np.cumsum(np.maximum(0, enough - np.arange(len(order)) - 1))])[:-1]
    second = np.arange(len(first)) - starts[first] + first + 1
    a, b = order[first], order[second]
    return np.minimum(a, b), np.maximum(a, b)


def _looked_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """values at the keys `wanted`, 0 where a key is missing."""
    order = np.argsort(keys)
    keys, values = keys[order], values[order]
    at = np.minimum(np.searchsorted(keys, wanted), max(0, len(keys) - 1))
    return np.where(keys[at] == wanted, values[at], 0) if len(keys) else np.zeros(len(wanted), np.int64)
