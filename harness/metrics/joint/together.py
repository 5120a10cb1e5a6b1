"""Who fires together and what they say of each other, system by system: the figures and together.json."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from harness.metrics.joint import information, null, sampling
from harness.metrics.joint.communities import Communities, communities
from harness.metrics.joint.counts import Meetings, lift, meetings, npmi, phi, usable
from harness.metrics.joint.firing import Firing
from harness.metrics.joint.work import Work
from harness.systems.system import Site
from harness.tables.measurement import Measurement
from harness.tables.statistics import resampled_sums

_SHOWN = 20  # pairs and communities of a site in together.json
_CHECKS = 5  # curveball draws that the null is held against

Blocks = list[tuple[np.ndarray, np.ndarray, np.ndarray]]  # of null.by_document


@dataclass
class _Counts:
    """Sums over sites, for shares of them."""

    meetings: float = 0
    more: float = 0
    less: float = 0

    def add(self, met: Meetings, mean: np.ndarray, found: np.ndarray) -> None:
        self.meetings += met.n_all
        self.more += float(met.n[found & (met.n > mean)].sum())
        self.less += float(met.n[found & (met.n < mean)].sum())

    def figures(self, work: Work, suffix: str) -> Iterator[Measurement]:
        reason = None if self.meetings else "no two units fire on the same token"
        for name, met in (("together_more", self.more), ("together_less", self.less)):
            share = met / self.meetings if self.meetings else np.nan
            yield work.figure(name + suffix, share, "share of meetings", reason)


@dataclass
class _Met:
    """What the sites give together."""

    counts: _Counts = field(default_factory=_Counts)
    counts_in_pools: _Counts = field(default_factory=_Counts)
    blocks: Blocks = field(default_factory=list)
    blocks_in_pools: Blocks = field(default_factory=list)
    scores: list[np.ndarray] = field(default_factory=list)  # [pairs, 2]: npmi and phi
    checked: float = 0.0  # meetings of the drawn pairs in free draws of the null
    kept_within: float = 0.0  # and in draws that keep every document's own rates
    graphs: list[Communities] = field(default_factory=list)
    usable_units: int = 0
    report: dict[str, Any] = field(default_factory=dict)

    def add(self, work: Work, site: Site, share: int) -> None:
        """One site, of which `share` pairs are drawn."""
        options, firing, dev = work.options, work.test[site], work.dev[site]
        met, fitted = meetings(firing, options.least), null.fit(firing)
        mean, found = _tested(work, firing, met, fitted, self.counts)
        pairs = sampling.draw_pairs(
            dev, meetings(dev, options.least), met, options.least, options.most, share, work.rng
        )
        work.pairs[site] = pairs
        work.draws[site] = [null.curveball(firing, work.rng, within_documents=True) for _ in range(options.draws)]
        if len(pairs):
            n, e, documents = null.by_document(firing, fitted, pairs)
            self.blocks.append((n, e, documents))
            rates, sums = firing.rates[pairs], (n.sum(1), e.sum(1))
            self.scores.append(
                np.stack([npmi(*sums, firing.n_tokens), phi(*sums, rates[:, 0], rates[:, 1], firing.n_tokens)], 1)
            )
            free = [null.curveball(firing, work.rng, within_documents=False) for _ in range(_CHECKS)]
            self.checked += _mean_meetings(free, pairs)
            self.kept_within += _mean_meetings(work.draws[site], pairs)
        graph = communities(
            met.i[found & (met.n > mean)],
            met.j[found & (met.n > mean)],
            np.log2(lift(met.n, np.maximum(mean, 1e-300)))[found & (met.n > mean)],
            int(work.rng.integers(2**31)),
        )
        self.graphs.append(graph)
        self.usable_units += int(usable(firing, options.least, options.most).sum())
        self.report[str(site)] = _report(firing, met, mean, found, graph)
        if (width := work.evaluation.system.group_width(site)) is not None:
            self._add_pools(work, firing, pairs, width)

    def _add_pools(self, work: Work, firing: Firing, pairs: np.ndarray, width: int) -> None:
        """The same inside each group of `width` units."""
        for pool in range(firing.n_units // width):
            inside = firing.pool(pool, width)
            of_pool = pairs[(pairs // width == pool).all(1)] - pool * width if len(pairs) else pairs
            fitted = null.fit(inside)
            _tested(work, inside, meetings(inside, work.options.least), fitted, self.counts_in_pools)
            if len(of_pool):
                self.blocks_in_pools.append(null.by_document(inside, fitted, of_pool))


def together(work: Work) -> Iterator[Measurement]:
    sites, met = list(work.test), _Met()
    for number, site in enumerate(sites):
        met.add(work, site, work.options.pairs // len(sites) + (number < work.options.pairs % len(sites)))
    (work.evaluation.artifacts / "together.json").write_text(json.dumps(met.report, indent=1) + "\n")

    yield from met.counts.figures(work, "")
    nothing = None if met.blocks else work.none_drawn()
    yield _lift(work, "lift", met.blocks, nothing)
    n = float(sum(part.sum() for part, _, _ in met.blocks))
    e = float(sum(part.sum() for _, part, _ in met.blocks))
    of_pairs = np.concatenate(met.scores) if met.scores else np.zeros((0, 2))
    yield work.over_units("npmi", of_pairs[:, 0], "", nothing)
    yield work.over_units("phi", of_pairs[:, 1], "", nothing)
    lifted = [_interval_above_1(*block, work.evaluation.resamples) for block in met.blocks]
    yield work.over_units("lifted", np.concatenate([*lifted, np.zeros(0)]), "share of pairs", nothing)
    yield work.figure("lift_within_documents", n / met.kept_within if met.kept_within else np.nan, "", nothing)
    yield work.figure("null_check", met.checked / e if e else np.nan, "", nothing)
    if any(work.evaluation.system.group_width(site) for site in sites):
        yield from met.counts_in_pools.figures(work, "_within_pools")
        few = None if met.blocks_in_pools else "underpowered: no drawn pair is of one pool"
        yield _lift(work, "lift_within_pools", met.blocks_in_pools, few)
    groups = sum(len(graph.members) for graph in met.graphs)
    yield work.figure("communities", groups, "communities")
    alone = None if groups else "no pair meets more often than chance"
    modularity = float(np.nanmean([graph.modularity for graph in met.graphs])) if groups else np.nan
    yield work.figure("modularity", modularity, "", alone)
    members = sum(len(group) for graph in met.graphs for group in graph.members)
    yield work.figure("in_communities", members / max(1, met.usable_units), "share of usable units")


def said(work: Work) -> Iterator[Measurement]:
    bins = work.options.bins
    parts: list[np.ndarray] = []
    correlation: list[np.ndarray] = []
    for site, firing in work.test.items():
        if len(pairs := work.pairs[site]):
            of_entry = information.value_bins(firing, bins)
            real = information.split(information.tables(firing, pairs, of_entry, bins))
            chance = np.mean(
                [
                    information.split(information.tables(draw, pairs, information.value_bins(draw, bins), bins)).parts
                    for draw in work.draws[site]
                ],
                axis=0,
            )
            bits = (real.parts - chance) * firing.n_tokens
            parts.append(np.concatenate([bits, real.together[:, None]], 1))
        groups = sampling.draw_groups(
            work.dev[site],
            work.options.group_size,
            work.options.least,
            work.options.most,
            -(-work.options.groups // len(work.test)),
            work.rng,
        )
        if len(groups):
            real_bits, at = information.total_correlation(firing, groups)
            chance = np.mean([information.total_correlation(draw, groups)[0] for draw in work.draws[site]], axis=0)
            correlation.append(np.stack([(real_bits - chance) * firing.n_tokens, at], 1))
    table = np.concatenate([*parts, np.zeros((0, 5))])
    nothing = None if len(table) else work.none_drawn()
    together = table[:, 4]
    for name, bits in (
        ("information", table[:, :4].sum(1)),
        ("information_on_on", table[:, 0]),
        ("information_on_value", table[:, 1] + table[:, 2]),
        ("information_value_value", table[:, 3]),
    ):
        yield work.per_meeting(name, bits, together, nothing)
    groups = np.concatenate([*correlation, np.zeros((0, 2))])
    few = None if groups[:, 1].sum() else f"underpowered: no {work.options.group_size} units fire on one token"
    yield work.per_meeting("total_correlation", groups[:, 0], groups[:, 1], few)


def _tested(work: Work, firing: Firing, met: Meetings, fitted: null.Null, counts: _Counts) -> tuple[np.ndarray, ...]:
    """Expected meetings of the listed pairs, and which of them are found; adds them to `counts`."""
    good = usable(firing, work.options.least, work.options.most)
    mean, variance = fitted.expected(met.i, met.j)
    of_interest = good[met.i] & good[met.j]
    p = null.p_values(met.n[of_interest], mean[of_interest], variance[of_interest])
    found = np.zeros(len(met.n), bool)
    usable_units = int(good.sum())
    found[of_interest] = null.discoveries(p, usable_units * (usable_units - 1) // 2)
    counts.add(met, mean, found)
    return mean, found


def _mean_meetings(draws: list[Firing], pairs: np.ndarray) -> float:
    """Meetings of all `pairs` together, mean over draws."""
    return float(np.mean([sum(len(draw.together(a, b)) for a, b in pairs) for draw in draws]))


def _interval_above_1(n: np.ndarray, e: np.ndarray, _documents: np.ndarray, resamples: int) -> np.ndarray:
    """Whether the 95% interval of each pair's own lift lies above 1, documents resampled. `[pairs]` bool as float"""
    sums = resampled_sums(np.concatenate([n, e]).T, resamples)  # [resamples, 2 pairs]
    ratio = sums[:, : len(n)] / np.maximum(sums[:, len(n) :], 1e-300)
    return (np.quantile(ratio, 0.025, axis=0) > 1).astype(float)


def _lift(work: Work, name: str, blocks: Blocks, reason: str | None) -> Measurement:
    if reason:
        return work.figure(name, np.nan, "", reason)
    sums = np.zeros((2, len(work.evaluation.documents)))
    for n, e, documents in blocks:
        sums[:, work.document_rows(documents)] += np.stack([n.sum(0), e.sum(0)])
    return work.by_documents(name, sums[0], sums[1], "")


def _report(firing: Firing, met: Meetings, mean: np.ndarray, found: np.ndarray, graph: Communities) -> dict[str, Any]:
    """The pairs of highest lift among those found, and the largest communities."""
    more = np.flatnonzero(found & (met.n > mean))
    scores = lift(met.n[more], mean[more])
    shown = more[np.argsort(-scores, kind="stable")[:_SHOWN]]
    i, j, n, e = met.i[shown], met.j[shown], met.n[shown], mean[shown]
    tokens, rates = firing.n_tokens, firing.rates
    columns = i, j, n, e, lift(n, e), npmi(n, e, tokens), phi(n, e, rates[i], rates[j], tokens)
    names = ("a", "b", "met", "expected", "lift", "npmi", "phi")
    return {
        "pairs_tested": len(met.n),
        "pairs_found": int(found.sum()),
        "pairs": [
            {
                name: round(float(x), 4) if name not in ("a", "b", "met") else int(x)
                for name, x in zip(names, row, strict=True)
            }
            for row in zip(*columns, strict=True)
        ],
        "edges": graph.edges,
        "communities": [group.tolist() for group in graph.members[:_SHOWN]],
    }
