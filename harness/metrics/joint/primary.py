"""The primary measurement: pairs drawn on dev, edited in contexts of eval; means, intervals, controls."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from harness.metrics.joint import excess
from harness.metrics.joint.against_strangers import FIGURES, LEVEL, AgainstStrangers, flagged
from harness.metrics.joint.artifacts import PairReport, write_pairs
from harness.metrics.joint.floor import random_frames
from harness.metrics.joint.options import VERSION, Options, needed
from harness.metrics.joint.pairs import Chosen, Fired, PairContexts, choose, fired, shuffled, strata
from harness.metrics.joint.passes import PairEffects, PairTable, run
from harness.metrics.joint.probing import Probed, probe
from harness.metrics.joint.resampling import pair_means
from harness.metrics.joint.strangers import trimmed_mean
from harness.systems.evaluation import Evaluation
from harness.systems.system import Site
from harness.tables.measurement import Direction, Measurement, not_applicable

if TYPE_CHECKING:
    from harness.corpus import Batch

log = logging.getLogger(__name__)


def measure(evaluation: Evaluation, options: Options, rng: np.random.Generator) -> list[Measurement]:
    """See `harness.metrics.joint.measure`."""
    system = evaluation.system
    dev = fired(evaluation, evaluation.batches(options.dev_sequences, dev=True), options.active)
    test = fired(evaluation, evaluation.batches(), options.active)
    kinds = strata(system.sites)
    chosen: list[Chosen] = []
    for i, stratum in enumerate(kinds):
        share = options.pairs // len(kinds) + (i < options.pairs % len(kinds))
        first = sum(len(earlier.units) for earlier in chosen)
        chosen.append(choose(stratum, dev, test, pairs=share, contexts=options.contexts, first_pair=first, rng=rng))
    results = _Results(evaluation, options, chosen, test)
    n = len(results.stratum)
    if n:
        pairs = PairTable(kinds, results.stratum, results.units, *_quantiles(chosen, dev, test, options),
                          rng.uniform(0, 2 * math.pi, n),
                          random_frames(n, options.draws, system.model.config.hidden_size, rng))  # fmt: skip
        contexts = PairContexts.cat([part.contexts for part in chosen])
        results.probed = probe(system, evaluation.split, pairs, contexts, chosen, dev, test, rng)
        pairs = results.probed.pairs

        def report(done: int, total: int) -> None:
            log.debug("%s: %d of %d contexts", system.name, done, total)

        results.of(contexts, run(system, evaluation.split, contexts, pairs, report))
        inside = [part for part in chosen if part.stratum.within and len(part.units)]
        if inside:
            cut = [shuffled(part, test, options.shuffled_contexts, rng) for part in inside]
            apart = PairContexts.cat(cut)
            results.of_shuffled(apart, run(system, evaluation.split, apart, pairs, report, extras=False))
        write_pairs(evaluation, results.strongest(10), evaluation.artifacts)
    return results.measurements()


def _quantiles(
    chosen: list[Chosen], dev: dict[Site, Fired], test: dict[Site, Fired], options: Options
) -> tuple[np.ndarray, np.ndarray]:
    """Low and high value of both units of every pair `[pairs, 2]`, over the dev tokens on which they fire."""
    low, high = [], []
    for part in chosen:
        for pair in part.units:
            ends = [
                np.quantile(dev[site].value[dev[site].unit == unit], [options.low, options.high])
                for site, unit in zip((part.stratum.a, part.stratum.b), pair, strict=True)
            ]
            low.append([end[0] for end in ends])
            high.append([end[1] for end in ends])
    return np.asarray(low, np.float32), np.asarray(high, np.float32)


@dataclass
class _Results:
    """Figures of all contexts, and what is asked of them."""

    evaluation: Evaluation
    options: Options
    chosen: list[Chosen]
    test: dict[Site, Fired]
    probed: Probed | None = None
    found: PairEffects | None = None
    contexts: PairContexts | None = None
    apart: PairEffects | None = None
    apart_contexts: PairContexts | None = None
    stratum: np.ndarray = field(init=False)  # of every pair
    units: np.ndarray = field(init=False)
    document: np.ndarray = field(init=False)  # of every token of eval

    def __post_init__(self) -> None:
        self.stratum = np.concatenate([np.full(len(part.units), i) for i, part in enumerate(self.chosen)]).astype(int)
        self.units = np.concatenate([part.units for part in self.chosen]).reshape(-1, 2)
        self.document = _documents(self.evaluation.batches())

    def of(self, contexts: PairContexts, found: PairEffects) -> None:
        self.contexts, self.found = contexts, found

    def of_shuffled(self, contexts: PairContexts, found: PairEffects) -> None:
        self.apart_contexts, self.apart = contexts, found

    def measurements(self) -> list[Measurement]:
        kinds = [part.stratum for part in self.chosen]
        layers = len(self.evaluation.system.layers)
        early = [i for i, kind in enumerate(kinds) if kind.within and kind.a.layer < layers - 1]
        # A system read only in the last layer has nothing else; its row says what that means.
        within = early or [i for i, kind in enumerate(kinds) if kind.within]
        across = [i for i, kind in enumerate(kinds) if not kind.within]
        everywhere = [i for i, kind in enumerate(kinds) if kind.within]
        rows = [*self._against_strangers(within, everywhere), *self._headline(within)]
        rows += self._shares("excess_share_across", "floor_share_across", across) if across else []
        for i, kind in enumerate(kinds):
            if kind.within:
                names = f"excess_share_layer{kind.a.layer}", f"floor_share_layer{kind.a.layer}"
                rows += self._shares(*names, [i], least=2)
        testable = [self.chosen[i].testable for i in within]
        rows += [
            self._plain("testable", float(np.mean(testable)), "share of co-activations"),
            self._plain("pairs", int(np.isin(self.stratum, within).sum()), "pairs"),
            self._plain("active_units", float(np.mean([len(f.token) / f.n_text for f in self.test.values()])),
                        "units/token/layer"),
        ]  # fmt: skip
        return rows

    def _against_strangers(self, within: list[int], everywhere: list[int]) -> list[Measurement]:
        reason = self._underpowered(within)
        if reason or self.found is None or self.contexts is None or self.probed is None:
            return not_applicable([f"joint/{name}" for name in FIGURES], VERSION, reason or "underpowered: no pair")
        compared = AgainstStrangers(
            self.found, self.contexts, self.probed, self.stratum, self._document_rows(self.contexts.token),
            len(self.evaluation.documents), self.evaluation.resamples, self.options.least_pairs,
        )  # fmt: skip
        return list(compared.measurements(within, everywhere))

    def _document_rows(self, token: np.ndarray) -> np.ndarray:
        return np.searchsorted(self.evaluation.documents, self.document[token])

    def _headline(self, within: list[int]) -> Iterator[Measurement]:
        def figure(name: str, group: str, column: str, unit: str = "bit", direction: Direction = "none") -> Measurement:
            return self._ratio(name, within, group, column, None, unit, direction)

        yield figure("excess", "real", "excess", direction="lower")
        yield figure("floor", "floor", "excess")
        yield self._difference("excess_above_floor", within)
        yield from self._shares("excess_share", "floor_share", within)
        yield self._above_floor(within)
        yield self._over_floor(within)
        yield figure("conjunction", "real", "conjunction", direction="lower")
        yield figure("conjunction_floor", "floor", "conjunction")
        yield figure("conjunction_rotated", "rotated", "conjunction")
        yield figure("novel_top", "real", "novel", "share of contexts", "lower")
        yield figure("novel_top_floor", "floor", "novel", "share of contexts")
        yield self._ratio("magnitude_share", within, "magnitude", "excess", "effect", "", "lower")
        yield self._ratio("magnitude_floor_share", within, "floor", "magnitude_excess", "magnitude_effect", "", "none")
        yield self._ratio("excess_share_rotated", within, "rotated", "excess", "real/effect", "", "none")
        yield self._ratio("excess_share_shuffled", within, "real", "excess", "effect", "", "none", apart=True)
        yield self._ratio("floor_share_shuffled", within, "floor", "excess", "effect", "", "none", apart=True)

    def _shares(self, excess_name: str, floor_name: str, of: list[int], least: int | None = None) -> list[Measurement]:
        return [
            self._ratio(excess_name, of, "real", "excess", "effect", "", "lower", least=least),
            self._ratio(floor_name, of, "floor", "excess", "effect", "", "none", least=least),
        ]

    def _ratio(
        self,
        name: str,
        of: list[int],
        group: str,
        column: str,
        per: str | None,
        unit: str,
        direction: Direction,
        *,
        least: int | None = None,
        apart: bool = False,
    ) -> Measurement:
        """Σ column / Σ per over contexts (per None: their number), `per` of the same group or as "group/column"."""
        reason = self._underpowered(of, least)
        found, contexts = (self.apart, self.apart_contexts) if apart else (self.found, self.contexts)
        if reason or found is None or contexts is None:
            return self._nan(name, unit, direction, reason)
        kept = np.isin(self.stratum[contexts.pair], of)

        def of_context(group: str, column: str) -> np.ndarray:
            values = getattr(found, group)[column][kept]
            return values.mean(1) if values.ndim == 2 else values  # floors: mean over draws

        numerator = of_context(group, column)
        if per is None:
            denominator = np.ones(len(numerator))
        else:
            denominator = of_context(*per.split("/")) if "/" in per else of_context(group, per)
        if not denominator.any():  # gates that are all 0 or 1 have no low and high value
            return self._nan(name, unit, direction, "the edits change nothing: there is no effect to take a share of")
        return self._bootstrapped(
            name, numerator, denominator, contexts.token[kept], int(np.isin(self.stratum, of).sum()), unit, direction
        )

    def _difference(self, name: str, of: list[int]) -> Measurement:
        reason = self._underpowered(of)
        if reason or self.found is None or self.contexts is None:
            return self._nan(name, "bit", "lower", reason)
        kept = np.isin(self.stratum[self.contexts.pair], of)
        above = self.found.real["excess"] - self.found.floor["excess"].mean(1)
        n = int(np.isin(self.stratum, of).sum())
        return self._bootstrapped(name, above[kept], np.ones(kept.sum()), self.contexts.token[kept], n, "bit", "lower")

    def _bootstrapped(
        self, name: str, numerator: np.ndarray, denominator: np.ndarray, token: np.ndarray, pairs: int, unit: str,
        to: Direction,
    ) -> Measurement:  # fmt: skip
        """Σ numerator / Σ denominator over the contexts of so many pairs, as many of each."""
        row = self._document_rows(token).reshape(pairs, -1)
        values = np.stack([numerator.reshape(pairs, -1), denominator.reshape(pairs, -1)], -1)
        means = pair_means(values, row, len(self.evaluation.documents), self.evaluation.resamples)
        sums = np.nansum(means.replicates, 1)
        value = float(numerator.sum() / denominator.sum())
        return Measurement(f"joint/{name}", value, unit, to, VERSION, sums[:, 0] / sums[:, 1], "documents")

    def p_values(self, of: list[int]) -> np.ndarray:
        """Of the pairs of these strata, see excess.above_floor."""
        assert self.found is not None
        mean = self.found.real["excess"].reshape(len(self.stratum), -1).mean(1)
        floors = self.found.floor["excess"].reshape(len(self.stratum), -1, self.options.draws).mean(1)
        kept = np.isin(self.stratum, of)
        return excess.above_floor(mean[kept], floors[kept])

    def _above_floor(self, of: list[int]) -> Measurement:
        reason = self._underpowered(of)
        if reason or self.found is None:
            return self._nan("pairs_above_floor", "share of pairs", "lower", reason)
        return flagged("pairs_above_floor", self.p_values(of) < LEVEL, self.evaluation.resamples)

    def _over_floor(self, of: list[int]) -> Measurement:
        """The trimmed mean over pairs of log excess / floor, as a ratio: a few pairs cannot carry it."""
        reason = self._underpowered(of)
        if reason or self.found is None or self.contexts is None:
            return self._nan("excess_over_floor", "ratio", "lower", reason)
        kept, n = np.isin(self.stratum, of), len(self.stratum)
        real = self.found.real["excess"].reshape(n, -1)[kept]
        floor = self.found.floor["excess"].mean(1).reshape(n, -1)[kept]
        row = self._document_rows(self.contexts.token).reshape(n, -1)[kept]
        means = pair_means(np.stack([real, floor], -1), row, len(self.evaluation.documents), self.evaluation.resamples)

        def ratio(of_pairs: np.ndarray) -> np.ndarray:
            logs = np.log(np.maximum(of_pairs, 0) + excess.RESOLUTION)
            return np.exp(trimmed_mean(logs[..., 0] - logs[..., 1]))

        value, replicates = float(ratio(means.value)), ratio(means.replicates)
        return Measurement("joint/excess_over_floor", value, "ratio", "lower", VERSION, replicates, "documents")

    def _underpowered(self, of: list[int], least: int | None = None) -> str | None:
        tokens = len(self.document)
        if len(self.evaluation.documents) < 2:
            return "underpowered: one document, an interval needs at least 2"
        least = self.options.least_pairs if least is None else least
        have = int(np.isin(self.stratum, of).sum())
        if have >= least:
            return None
        best = max((self.chosen[i].best for i in of), default=0)
        if best >= self.options.contexts:
            return (
                f"underpowered: {have} pairs have {self.options.contexts} contexts on {tokens:,} tokens, {least} needed"
            )
        return needed(self.options.contexts, best, tokens)

    @staticmethod
    def _nan(name: str, unit: str, direction: Direction, reason: str | None) -> Measurement:
        return Measurement(f"joint/{name}", math.nan, unit, direction, VERSION, reason=reason)

    @staticmethod
    def _plain(name: str, value: float, unit: str) -> Measurement:
        return Measurement(f"joint/{name}", value, unit, "none", VERSION)

    def strongest(self, most: int) -> list[PairReport]:
        """The pairs of largest mean excess over their own floor, for a person to read."""
        assert self.found is not None
        assert self.contexts is not None
        n = len(self.stratum)
        real = {name: values.reshape(n, -1) for name, values in self.found.real.items()}
        floors = self.found.floor["excess"].reshape(n, -1)
        above = real["excess"].mean(1) - floors.mean(1)
        p = self.p_values(list(range(len(self.chosen))))
        reports = []
        for pair in np.argsort(-above)[:most]:
            kind = self.chosen[self.stratum[pair]].stratum
            rows = np.flatnonzero(self.contexts.pair == pair)
            rows = rows[np.argsort(-self.found.real["excess"][rows])]
            shown = rows[np.linspace(0, len(rows) - 1, min(6, len(rows))).astype(int)]  # from strongest to weakest
            means = {name: float(values[pair].mean()) for name, values in real.items()}
            reports.append(
                PairReport(
                    (str(kind.a), str(kind.b)),
                    (int(self.units[pair, 0]), int(self.units[pair, 1])),
                    {**means, "floor": float(floors[pair].mean()), "p_value": float(p[pair])},
                    self.contexts.token[shown],
                    self.found.real["excess"][shown],
                    self.found.top[shown],
                    self.found.probability[shown],
                )
            )
        return reports


def _documents(batches: Iterator[Batch]) -> np.ndarray:
    return np.concatenate([batch.document.reshape(-1).cpu().numpy() for batch in batches])
