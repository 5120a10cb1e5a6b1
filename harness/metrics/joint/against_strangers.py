"""What pairs that fire together have over strangers: the headline of the joint metric, from the figures of contexts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from harness.metrics.joint import meaning, strangers
from harness.metrics.joint.options import VERSION
from harness.metrics.joint.pairs import PairContexts
from harness.metrics.joint.passes import PairEffects
from harness.metrics.joint.probing import Probed
from harness.metrics.joint.resampling import PairMeans, pair_means
from harness.tables.measurement import Direction, Measurement
from harness.tables.statistics import proportion_bootstrap

LEVEL = 0.05
FIGURES = (
    "together_over_strangers",
    "pairs_above_strangers",
    "pairs_with_strangers",
    "conjunction_over_strangers",
    "pairs_conjoined",
    "meaning_kept",
    "meaning_kept_strangers",
    "pairs_code",
)


@dataclass(frozen=True)
class AgainstStrangers:
    """stratum `[pairs]`; document_row of every context, below n_documents."""

    found: PairEffects
    contexts: PairContexts
    probed: Probed
    stratum: np.ndarray
    document_row: np.ndarray
    n_documents: int
    resamples: int
    least_pairs: int

    def measurements(self, within: list[int], everywhere: list[int]) -> Iterator[Measurement]:
        """Excess in the strata `within`, conjunction and meaning `everywhere`: the last layer is where linear codes
        are."""
        reason = self._no_strangers(within)
        if reason:
            yield _nan("together_over_strangers", "ratio", "lower", reason)
            yield _nan("pairs_above_strangers", "share of pairs", "lower", reason)
        else:
            yield self._over_strangers("together_over_strangers", "excess", within)
            yield flagged("pairs_above_strangers", self._stranger_p("excess", within) < LEVEL, self.resamples)
        near = self.probed.near[np.isin(self.stratum, within)]
        yield Measurement("joint/pairs_with_strangers", float(near.mean()), "share of pairs", "none", VERSION)
        reason = self._no_strangers(everywhere)
        names = ("pairs_conjoined", "meaning_kept", "meaning_kept_strangers", "pairs_code")
        if reason:
            yield _nan("conjunction_over_strangers", "ratio", "lower", reason)
            for name in names:
                yield _nan(name, "share", "none", reason)
            return
        yield self._over_strangers("conjunction_over_strangers", "conjunction", everywhere)
        conjoined = self._stranger_p("conjunction", everywhere) < LEVEL
        yield flagged("pairs_conjoined", conjoined, self.resamples)
        yield from self._meaning(everywhere, conjoined)

    def _paired(self, of: list[int], *, near: bool = True) -> np.ndarray:
        """Pairs of these strata whose strangers are near enough. `[pairs]` boolean"""
        kept = np.isin(self.stratum, of)
        return kept & self.probed.near if near else kept

    def _no_strangers(self, of: list[int]) -> str | None:
        have, of_all = int(self._paired(of).sum()), int(self._paired(of, near=False).sum())
        if have >= self.least_pairs:
            return None
        return (
            f"underpowered: {have} of {of_all} pairs have {strangers.KEPT} strangers that are like them, "
            f"{self.least_pairs} needed"
        )

    def _by_pair(self, group: str, column: str, kept: np.ndarray) -> np.ndarray:
        """`[pairs, contexts]`, of strangers `[pairs, contexts, strangers]`."""
        values = getattr(self.found, group)[column]
        return values.reshape(len(self.stratum), -1, *values.shape[1:])[kept]

    def _stranger_p(self, figure: str, of: list[int]) -> np.ndarray:
        kept = self._paired(of)
        real, effect_b = (self._by_pair("real", name, kept).mean(1) for name in (figure, "effect_b"))
        others, effects = (self._by_pair("stranger", name, kept).mean(1) for name in (figure, "effect"))
        return strangers.above_strangers(real, effect_b, others, effects)

    def _over_strangers(self, name: str, figure: str, of: list[int]) -> Measurement:
        kept = self._paired(of)
        real = [self._by_pair("real", column, kept)[:, :, None] for column in (figure, "effect_b")]
        others = [self._by_pair("stranger", column, kept) for column in (figure, "effect")]
        means = self._means(np.concatenate([*real, *others], 2), kept)

        def ratio(of_pairs: np.ndarray) -> np.ndarray:
            n = strangers.KEPT
            logs = strangers.log_ratios(
                of_pairs[..., 0], of_pairs[..., 1], of_pairs[..., 2 : 2 + n], of_pairs[..., 2 + n :]
            )
            return np.exp(strangers.trimmed_mean(logs))

        return _replicated(name, float(ratio(means.value)), ratio(means.replicates), "ratio", "lower")

    def _meaning(self, of: list[int], conjoined: np.ndarray) -> Iterator[Measurement]:
        """What is left of what units say alone: with the partner, and with a stranger in its place (of A alone)."""
        kept = self._paired(of)
        alone = self.probed.alone[kept]
        strength = np.stack([self._strength(side, kept) for side in (0, 1)], -1)  # [pairs, contexts, 2]
        with_partner = np.stack([self._by_pair("real", f"meaning_{side}", kept) for side in "ab"], -1) / strength
        with_stranger = self._by_pair("stranger", "meaning_a", kept) / strength[:, :, :1]
        shares = meaning.kept(with_partner, alone)  # [pairs, contexts]
        of_a = meaning.kept(with_partner[:, :, :1], alone[:, :1])
        others = np.stack([meaning.kept(with_stranger[:, :, i : i + 1], alone[:, :1]) for i in range(strangers.KEPT)])
        told = np.isfinite(of_a).all(1)
        if told.sum() < self.least_pairs:
            reason = f"underpowered: {int(told.sum())} pairs whose units are also seen apart, in enough contexts"
            for name in ("meaning_kept", "meaning_kept_strangers", "pairs_code"):
                yield _nan(name, "share", "none", reason)
            return
        rows = np.flatnonzero(kept)[told]
        mask = np.zeros(len(self.stratum), bool)
        mask[rows] = True
        for name, values in (("meaning_kept", of_a), ("meaning_kept_strangers", others.mean(0))):
            means = self._means(values[told][:, :, None], mask)
            yield _replicated(
                name, float(np.median(means.value[:, 0])), np.nanmedian(means.replicates[:, :, 0], 1), "share", "higher"
            )
        yield flagged("pairs_code", conjoined[told] & (meaning.lost(shares[told]) < LEVEL), self.resamples)

    def _strength(self, side: int, kept: np.ndarray) -> np.ndarray:
        values = (self.contexts.strength_a, self.contexts.strength_b)[side]
        return values.reshape(len(self.stratum), -1)[kept].astype(np.float64)

    def _means(self, values: np.ndarray, kept: np.ndarray) -> PairMeans:
        """values `[pairs kept, contexts, columns]`."""
        row = self.document_row.reshape(len(self.stratum), -1)[kept]
        return pair_means(values, row, self.n_documents, self.resamples)


def flagged(name: str, flags: np.ndarray, resamples: int) -> Measurement:
    """The share of pairs that are, pairs resampled."""
    replicates = proportion_bootstrap(flags, resamples)
    return Measurement(f"joint/{name}", float(flags.mean()), "share of pairs", "lower", VERSION, replicates, "units")


def _nan(name: str, unit: str, direction: Direction, reason: str) -> Measurement:
    return Measurement(f"joint/{name}", math.nan, unit, direction, VERSION, reason=reason)


def _replicated(name: str, value: float, replicates: np.ndarray, unit: str, to: Direction) -> Measurement:
    return Measurement(f"joint/{name}", value, unit, to, VERSION, replicates, "documents")
