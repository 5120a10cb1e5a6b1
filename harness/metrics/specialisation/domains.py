"""Units taken away by domain: what the text loses there and elsewhere, as a share of what the layers do for it.

Domains differ in what their layers do at all (games from a grammar lose a bit where prose loses a hundredth), so a loss
is a share of what is lost there with every unit off. Every domain loses at most `MOST` units, and its control units
that write as much.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from harness.metrics.joint.pairs import Fired
from harness.metrics.specialisation import information, knockout
from harness.metrics.specialisation.information import Counted
from harness.systems.evaluation import Evaluation
from harness.systems.system import Site
from harness.tables.measurement import Direction, Measurement, not_applicable
from harness.tables.statistics import resampled_sums

VERSION = 2
LEAST, DOCUMENTS = 20, 3  # firings, and documents with one, from which a unit is given to a domain
MOST = 32  # units of a domain that are taken away, over all sites
DRAWS = 4  # of controls
SAYS = 0.01  # bits per byte that all units must be worth in a domain for shares of it to mean anything


@dataclass(frozen=True)
class Targets:
    """Of every target `[targets]`: document (numbered from 0), domain, bytes, and the place of the token before it."""

    document: np.ndarray
    domain: np.ndarray
    n_bytes: np.ndarray
    source: np.ndarray


def targets(evaluation: Evaluation, sequences: int) -> Targets:
    batches = list(evaluation.batches(min(sequences, evaluation.sequences)))
    columns = [
        np.concatenate([getattr(batch, name)[:, 1:].reshape(-1).cpu().numpy() for batch in batches])
        for name in ("document", "domain", "n_bytes")
    ]
    length = evaluation.split.length
    source = np.arange(len(columns[0]) // (length - 1))[:, None] * length + np.arange(length - 1)
    return Targets(np.unique(columns[0], return_inverse=True)[1], columns[1], columns[2], source.reshape(-1))


def assigned(counted: Mapping[Site, Counted], domain: int, most: int = MOST) -> dict[Site, np.ndarray]:
    """The units of a domain, at most `most`: those with most mass in it, over all sites."""
    masses: list[tuple[float, Site, int]] = []
    for site, one in counted.items():
        rates = one.by_domain()
        here = (information.specialised(rates) == domain) & one.often(LEAST, DOCUMENTS)
        masses += [(float(rates[domain, unit]), site, int(unit)) for unit in np.flatnonzero(here)]
    kept = sorted(masses, key=lambda each: -each[0])[:most]
    return {site: np.sort(np.array([unit for _, at, unit in kept if at == site], dtype=np.int64)) for site in counted}


def written(dev: Mapping[Site, Fired]) -> dict[Site, np.ndarray]:
    """Of every unit, the sum of its strengths on dev. By site `[units]`"""
    return {site: np.bincount(one.unit, one.strength, minlength=one.n_units) for site, one in dev.items()}


def knocked_out(
    evaluation: Evaluation,
    dev: Mapping[Site, Fired],
    counted: Mapping[Site, Counted],
    sequences: int,
    names: Mapping[int, str],
    rng: np.random.Generator,
) -> list[Measurement]:
    size = written(dev)
    domains = [domain for domain in range(next(iter(counted.values())).n_domains) if domain in names]
    runs: list[knockout.Units] = [{site: np.arange(one.n_units) for site, one in dev.items()}]
    taken = []
    for domain in domains:
        chosen = assigned(counted, domain)
        taken.append(sum(map(len, chosen.values())))
        runs.append(chosen)
        runs += [{site: knockout.like(units, size[site], rng) for site, units in chosen.items()} for _ in range(DRAWS)]
    where = targets(evaluation, sequences)
    rises = knockout.run(evaluation, runs, sequences).rises.numpy() / np.log(2)
    lost = _Lost(rises, where, np.array(domains))
    value = lost.figures(lost.columns().sum(0, keepdims=True))[0]
    if np.isnan(value).any():
        wanted = [f"specialisation/knockout_{name}" for name in ("own", "elsewhere", "selectivity_above_random")]
        return not_applicable(wanted, VERSION, f"its units are worth {SAYS} bit/byte in fewer than two domains")
    replicates = lost.figures(resampled_sums(lost.columns(), evaluation.resamples))
    found = [
        Measurement(f"specialisation/knockout_{name}", float(value[at]), unit, direction, VERSION,
                    replicates[:, at], "documents")
        for at, (name, unit, direction) in enumerate(FIGURES)
    ]  # fmt: skip
    for name, number in zip(COUNTED, value[len(FIGURES) :], strict=True):
        found.append(_plain(f"knockout_{name}", float(number), "domains"))
    found.append(_plain("knockout_units", float(np.mean(taken)), "units/domain"))
    matrix = lost.per_byte(lost.columns().sum(0))[1 :: 1 + DRAWS]
    for domain, row in zip(domains, matrix, strict=True):
        for other, bits in zip(domains, row, strict=True):
            if np.isfinite(bits):
                found.append(_plain(f"without_{names[domain]}_in_{names[other]}", float(bits), "bit/byte"))
    return found


FIGURES: tuple[tuple[str, str, Direction], ...] = (
    ("own", "share of the layers' effect", "none"),
    ("elsewhere", "share of the layers' effect", "none"),
    ("selectivity", "share of the layers' effect", "none"),
    ("selectivity_random", "share of the layers' effect", "none"),
    ("selectivity_above_random", "share of the layers' effect", "higher"),
)
COUNTED = ("told", "domains")  # after them; whole numbers of few, of which a resampled interval would be none


@dataclass(frozen=True)
class _Lost:
    """rises `[runs, targets]` in bits: all units off, then of each domain its own units off and its controls."""

    rises: np.ndarray
    where: Targets
    domains: np.ndarray

    def columns(self) -> np.ndarray:
        """`[documents, (runs + 1) · domains]`: bits that are lost in each domain, run by run, and its bytes."""
        document, n = self.where.document, int(self.where.document.max()) + 1
        found = []
        for values in (*self.rises, self.where.n_bytes.astype(float)):
            found += [
                np.bincount(document, values * (self.where.domain == domain), minlength=n) for domain in self.domains
            ]
        return np.stack(found, 1)

    def per_byte(self, totals: np.ndarray) -> np.ndarray:
        """`[..., runs, domains]` of sums `[..., columns]`: bits per byte, NaN where the text has none of the domain."""
        parts = totals.reshape(*totals.shape[:-1], len(self.rises) + 1, len(self.domains))
        with np.errstate(invalid="ignore", divide="ignore"):
            return parts[..., :-1, :] / parts[..., -1:, :]

    def figures(self, totals: np.ndarray) -> np.ndarray:
        """`[n, figures and counted]` of sums `[n, columns]`; NaN where fewer than two domains count."""
        bits = self.per_byte(totals)
        n, d = len(bits), len(self.domains)
        share = bits[:, 1:] / bits[:, :1]
        share = share.reshape(n, d, 1 + DRAWS, d)  # [n, whose units, which run, where]
        counts = np.broadcast_to((bits[:, 0] > SAYS)[:, None, None], share.shape)  # not where nothing is at stake
        share = np.where(counts, share, np.nan)
        diagonal = np.eye(d, dtype=bool)[None, :, None]
        with np.errstate(invalid="ignore"):
            own = _mean(np.where(diagonal, share, np.nan), 3)  # [n, whose, which run]
            elsewhere = _mean(np.where(~diagonal, share, np.nan), 3)
        apart = own - elsewhere
        control = _mean(apart[:, :, 1:], 2)
        counted = np.isfinite(apart[:, :, 0]).sum(1)
        with np.errstate(invalid="ignore"):
            told = (apart[:, :, 0] > apart[:, :, 1:].max(2)).sum(1)
        selectivity, random = _mean(apart[:, :, 0], 1), _mean(control, 1)
        found = np.stack(
            [_mean(own[:, :, 0], 1), _mean(elsewhere[:, :, 0], 1), selectivity, random, selectivity - random, told,
             counted], 1,
        )  # fmt: skip
        return np.where((counted >= 2)[:, None], found, np.nan)


def _mean(values: np.ndarray, axis: int) -> np.ndarray:
    """Of what is no NaN; NaN where nothing is left."""
    there = np.isfinite(values)
    total, n = np.where(there, values, 0).sum(axis), there.sum(axis)
    return np.where(n > 0, total / np.maximum(n, 1), np.nan)


def _plain(name: str, value: float, unit: str) -> Measurement:
    return Measurement(f"specialisation/{name}", value, unit, "none", VERSION)
