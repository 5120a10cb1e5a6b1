"""The reports of one system: units are chosen, and each is described from stored codes and what metrics left."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from harness.metrics.autointerp.firings import Firings
from harness.metrics.autointerp.writes import logits_of, mean_writes
from harness.metrics.units import reports
from harness.metrics.units.chosen import choose
from harness.metrics.units.contexts import Windows, by_tercile, levels_of, near_misses, strongest
from harness.metrics.units.left import Left
from harness.metrics.units.partners import Company, described
from harness.metrics.units.reports import Histogram, Unit, UnitReports, Why
from harness.metrics.units.text import CodedText
from harness.systems.evaluation import Evaluation

BEFORE, AFTER = 16, 8
PROMOTED = 8
BINS = 16
_SEED = 0  # of what is drawn for a unit, with where it fires

Writes = dict[tuple[str, int], tuple[tuple[str, ...], tuple[str, ...]]]  # site, column → tokens raised, and lowered


@dataclass(frozen=True)
class Wanted:
    """a_site: units of every site. strongest: a unit fires on a token where it is among so many of its site."""

    a_site: int
    strongest: int


def describe(
    evaluation: Evaluation, wanted: Wanted, left: Left, seed: int, report: Callable[[float, float, str], None]
) -> UnitReports:
    """seed: of the system, for the record."""
    text = CodedText.of(evaluation, BEFORE, AFTER)
    sites = {
        str(site): Firings.of(str(site), evaluation.load_codes(site), wanted.strongest)
        for site in evaluation.system.sites
    }
    chosen = choose(sites, left, wanted.a_site)
    writes = _writes(evaluation, sites, chosen)
    pieces = sorted(
        {*text.shown.values()}
        | {token for both in writes.values() for tokens in both for token in tokens}
        | {token for pair in left.pairs for said in pair.next.values() for token, _ in said}
    )
    piece = {token: index for index, token in enumerate(pieces)}
    of_id = np.zeros(int(text.ids.max()) + 1, int)
    of_id[list(text.shown)] = [piece[token] for token in text.shown.values()]
    windows = Windows(text, of_id[text.ids])
    company = Company(sites, int(text.counted.sum()))
    units: list[Unit] = []
    total = sum(map(len, chosen.values()))
    for site, columns in chosen.items():
        for column in sorted(columns, key=lambda column: sites[site].units[column]):
            units.append(_unit(company, windows, sites[site], column, columns[column], left, writes, piece))
            report(len(units), total, "units")
    return UnitReports(
        system=evaluation.system.name,
        seed=seed,
        tokens=company.tokens,
        documents=len(np.unique(text.document[text.counted])),
        strongest=wanted.strongest,
        sites=tuple(
            reports.Site(site=site, n_units=f.n_units, live=len(f.units), described=len(chosen[site]))
            for site, f in sites.items()
        ),
        pieces=tuple(pieces),
        units=tuple(units),
    )


def _writes(
    evaluation: Evaluation, sites: Mapping[str, Firings], chosen: Mapping[str, Mapping[int, tuple[Why, ...]]]
) -> Writes:
    columns = {site: sorted(of_site) for site, of_site in chosen.items()}
    asked = {
        site: _only(sites[str(site)], columns[str(site)]) for site in evaluation.system.sites if columns[str(site)]
    }
    found: Writes = {}
    means: Mapping[object, Tensor] = {**mean_writes(evaluation, asked, evaluation.codes_sequences)} if asked else {}
    for site, written in means.items():
        for column, write in zip(columns[str(site)], written, strict=True):
            found[str(site), column] = logits_of(evaluation, write, PROMOTED)
    return found


def _only(firings: Firings, columns: list[int]) -> Firings:
    """Those columns alone, in this order."""
    parts = [firings.of_column(column) for column in columns]
    return Firings(
        firings.site,
        firings.n_units,
        firings.n_tokens,
        firings.units[columns],
        np.concatenate([[0], np.cumsum([len(tokens) for tokens, _ in parts])]),
        np.concatenate([tokens for tokens, _ in parts]),
        np.concatenate([strengths for _, strengths in parts]),
    )


def _unit(
    company: Company,
    windows: Windows,
    firings: Firings,
    column: int,
    why: tuple[Why, ...],
    left: Left,
    writes: Writes,
    piece: Mapping[str, int],
) -> Unit:
    text, named = windows.text, (firings.site, int(firings.units[column]))
    tokens, strengths = firings.of_column(column)
    generator = firings.generator(column, _SEED)
    levels = levels_of(len(text), tokens, strengths)
    top = strongest(text, tokens, strengths)
    quantiles = by_tercile(tokens, strengths, top, generator)
    misses = near_misses(text, tokens, levels, generator)
    promoted, suppressed = writes[firings.site, column]
    return Unit(
        site=named[0],
        unit=named[1],
        fired=len(tokens),
        density=_short(len(tokens) / company.tokens),
        mean_strength=_short(float(strengths.mean(dtype=float))),
        max_strength=_short(float(strengths.max())),
        why=why,
        explanation=left.explained.get(named),
        histogram=histogram(strengths),
        promoted=tuple(piece[token] for token in promoted),
        suppressed=tuple(piece[token] for token in suppressed),
        domains=_domains(text, tokens),
        partners=tuple(described(company, windows, named, levels, left.pairs, piece)),
        top=tuple(windows.around(token, levels) for token in top),
        quantiles=tuple(windows.around(token, levels) for token in quantiles),
        near_misses=tuple(windows.around(token, levels) for token in misses),
    )


def histogram(strengths: np.ndarray) -> Histogram:
    """BINS bins of equal width in log strength, over strengths above 0 `[firings]`."""
    logs = np.log(strengths.astype(float))
    low, high = logs.min(), logs.max()
    place = np.zeros(len(logs), int)
    if high > low:
        place = np.minimum(((logs - low) / (high - low) * BINS).astype(int), BINS - 1)
    counts = np.bincount(place, minlength=BINS)
    return Histogram(
        low=_short(float(strengths.min())), high=_short(float(strengths.max())), counts=tuple(counts.tolist())
    )


def _domains(text: CodedText, tokens: np.ndarray) -> tuple[tuple[str, float, float], ...]:
    """Name, share of the firings on `tokens`, share of all counted tokens; of domains that have any."""
    if not text.domains:
        return ()
    everywhere = np.bincount(text.domain[text.counted], minlength=len(text.domains)) / text.counted.sum()
    fired = np.bincount(text.domain[tokens], minlength=len(text.domains)) / len(tokens)
    return tuple(
        (name, _short(float(own)), _short(float(share)))
        for name, own, share in zip(text.domains, fired, everywhere, strict=True)
        if share
    )


def _short(value: float) -> float:
    """Six digits: more than a page shows."""
    return float(f"{value:.6g}")
