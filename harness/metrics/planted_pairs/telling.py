"""What the joint metric says of pairs whose relation is known: shares, precision, recall, order without a threshold.

Intervals resample pairs within their relation, since how many there are of each is the corpus's. [U: ours]
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from harness.metrics.joint.against_strangers import LEVEL
from harness.metrics.joint.strangers import trimmed_mean
from harness.metrics.planted_pairs.choosing import UNPLANTED
from harness.metrics.planted_pairs.edited import FIGURES, Edited
from harness.tables.measurement import Measurement
from harness.tables.statistics import proportion_bootstrap, unit_bootstrap

VERSION = 1
CONJUNCTION, ADDITIVE = "conjunction", "additive"
NAMES = {CONJUNCTION: "conjunctions", "mixture": "mixtures", ADDITIVE: "additive", UNPLANTED: UNPLANTED}


@dataclass(frozen=True)
class Telling:
    """relation `[pairs]` of the tested pairs; planted: how many pairs of each relation the corpus has; why: in words,
    of those that were not tested."""

    edited: Edited | None
    relation: np.ndarray
    planted: Counter[str]
    why: str
    least_pairs: int
    resamples: int

    def measurements(self) -> Iterator[Measurement]:
        for relation in NAMES:
            yield from self._of(relation)
        for figure in FIGURES:
            yield from self._flags(figure)
            yield self._auroc(f"{figure}_auroc", figure, ADDITIVE)
            yield self._auroc(f"{figure}_auroc_unplanted", figure, UNPLANTED)
            yield self._auroc(f"{figure}_auroc_share", figure, ADDITIVE, strangers=False)

    def _of(self, relation: str) -> Iterator[Measurement]:
        """Means over the pairs of one relation."""
        at, name = self._at(relation, strangers=False), NAMES[relation]
        near = self._at(relation)
        yield count(f"tested_of_{name}", len(at), "pairs")
        yield count(f"with_strangers_of_{name}", len(near), "pairs")
        reason = self._reason([relation], strangers=False)
        for what in (*FIGURES, "effect", "floor"):
            if reason or self.edited is None:
                yield _nan(f"{what}_bits_of_{name}", "bit", reason)
                continue
            values = self.edited.bits(what)[at]
            replicates = unit_bootstrap(values, n_resamples=self.resamples)
            yield _measured(f"{what}_bits_of_{name}", float(values.mean()), "bit", replicates)
        reason = self._reason([relation])
        for figure in FIGURES:
            if reason or self.edited is None:
                yield _nan(f"{figure}_over_strangers_of_{name}", "ratio", reason)
                yield _nan(f"{figure}_flagged_of_{name}", "share of pairs", reason)
                continue
            logs = self.edited.over_strangers(figure)[near]
            again = logs[np.random.default_rng(len(logs)).integers(0, len(logs), (self.resamples, len(logs)))]
            value, replicates = float(np.exp(trimmed_mean(logs))), np.exp(trimmed_mean(again))
            yield _measured(f"{figure}_over_strangers_of_{name}", value, "ratio", replicates)
            flags = self._flagged(figure)[near]
            shares = proportion_bootstrap(flags, self.resamples)
            yield _measured(f"{figure}_flagged_of_{name}", float(flags.mean()), "share of pairs", shares)

    def _flags(self, figure: str) -> Iterator[Measurement]:
        """Precision over the planted pairs that have strangers, with its chance; recall of all planted conjunctions."""
        names = (f"{figure}_precision", f"{figure}_precision_chance", f"{figure}_recall")
        reason = self._reason([CONJUNCTION, ADDITIVE])
        if reason:
            yield from (_nan(name, "share of pairs", reason) for name in names)
            return
        flagged = {relation: self._flagged(figure)[self._at(relation)] for relation in NAMES if relation != UNPLANTED}
        hits = flagged[CONJUNCTION]
        drawn = {relation: self._drawn(flags, seed) for seed, (relation, flags) in enumerate(flagged.items())}
        of_all = sum(int(flags.sum()) for flags in flagged.values())
        if of_all:
            every = np.sum(list(drawn.values()), 0)
            replicates = np.divide(drawn[CONJUNCTION], every, out=np.full(self.resamples, np.nan), where=every > 0)
            yield _measured(names[0], float(hits.sum() / of_all), "share of pairs", replicates)
        else:
            yield _nan(names[0], "share of pairs", f"no planted pair is flagged at {LEVEL:.0%}")
        chance = len(hits) / sum(len(flags) for flags in flagged.values())
        yield count(names[1], chance, "share of pairs")
        n = self.planted[CONJUNCTION]
        yield _measured(names[2], float(hits.sum() / n), "share of pairs", drawn[CONJUNCTION] / n)

    def _auroc(self, name: str, figure: str, other: str, *, strangers: bool = True) -> Measurement:
        """P(a conjunction's statistic exceeds another pair's), ties half."""
        reason = self._reason([CONJUNCTION, other], strangers=strangers)
        if reason or self.edited is None:
            return _nan(name, "AUROC", reason)
        statistic = self.edited.over_strangers(figure) if strangers else self.edited.share(figure)
        mine, others = (statistic[self._at(relation, strangers=strangers)] for relation in (CONJUNCTION, other))
        above = np.sign(mine[:, None] - others[None, :]) / 2 + 0.5
        rng = np.random.default_rng(list(above.shape))
        weights = [rng.multinomial(n, np.full(n, 1 / n), self.resamples) / n for n in above.shape]
        replicates = ((weights[0] @ above) * weights[1]).sum(1)
        return _measured(name, float(above.mean()), "AUROC", replicates)

    def _at(self, relation: str, *, strangers: bool = True) -> np.ndarray:
        """Places of the tested pairs of a relation, with `strangers` only of those that have some."""
        if self.edited is None:
            return np.zeros(0, int)
        return np.flatnonzero((self.relation == relation) & (self.edited.near | (not strangers)))

    def _flagged(self, figure: str) -> np.ndarray:
        assert self.edited is not None
        return self.edited.p_values(figure) < LEVEL

    def _drawn(self, flags: np.ndarray, seed: int) -> np.ndarray:
        """How many of resampled pairs are flagged, each relation with a seed of its own. `[resamples]`"""
        n = len(flags)
        return proportion_bootstrap(flags, self.resamples, seed) * n if n else np.zeros(self.resamples)

    def _reason(self, relations: list[str], *, strangers: bool = True) -> str | None:
        """Why there is no figure over these relations; None where there is one."""
        have = {relation: len(self._at(relation, strangers=strangers)) for relation in relations}
        if all(n >= self.least_pairs for n in have.values()):
            return None
        some = " and ".join(
            f"{n} unplanted" if relation == UNPLANTED else f"{n} of {self.planted[relation]} {NAMES[relation]}"
            for relation, n in have.items()
        )
        what = "can be tested against strangers" if strangers else "can be tested"
        return f"underpowered: {some} {what}, {self.least_pairs} needed ({self.why})"


def _measured(name: str, value: float, unit: str, replicates: np.ndarray) -> Measurement:
    return Measurement(f"planted_pairs/{name}", value, unit, "none", VERSION, replicates, "units")


def count(name: str, value: float, unit: str) -> Measurement:
    """A figure without an interval."""
    return Measurement(f"planted_pairs/{name}", value, unit, "none", VERSION)


def _nan(name: str, unit: str, reason: str | None) -> Measurement:
    return Measurement(f"planted_pairs/{name}", math.nan, unit, "none", VERSION, reason=reason)
