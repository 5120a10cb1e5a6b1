"""The joint metric's edits on chosen pairs: with both units, one, the other and neither, and strangers in B's place."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from harness.metrics.joint import strangers
from harness.metrics.joint.floor import random_frames
from harness.metrics.joint.pairs import Chosen, Fired, PairContexts
from harness.metrics.joint.passes import PairEffects, PairTable, run
from harness.metrics.joint.probing import probe
from harness.systems.evaluation import Evaluation
from harness.systems.system import Site

log = logging.getLogger(__name__)

FIGURES = ("excess", "conjunction")
DRAWS = 1  # of random directions: they are shown and decide nothing


@dataclass(frozen=True)
class Edited:
    """Means over the contexts of each pair, in bits, by figure (excess, conjunction) `[pairs]`, of strangers
    `[pairs, KEPT]`. effect: of both, effect_b: of B alone, effects: of the strangers alone `[pairs, KEPT]`; floor:
    excess of random directions `[pairs]`. near `[pairs]`: whether there are strangers that are like B."""

    figure: Mapping[str, np.ndarray]
    stranger: Mapping[str, np.ndarray]
    effect: np.ndarray
    effect_b: np.ndarray
    effects: np.ndarray
    floor: np.ndarray
    near: np.ndarray

    def bits(self, what: str) -> np.ndarray:
        """A figure, the effect or the floor `[pairs]`."""
        return {**self.figure, "effect": self.effect, "floor": self.floor}[what]

    def over_strangers(self, figure: str) -> np.ndarray:
        """Log of what a pair has, per bit that B says alone, over what it has with strangers; nan without them."""
        logs = strangers.log_ratios(self.figure[figure], self.effect_b, self.stranger[figure], self.effects)
        return np.where(self.near, logs, np.nan)

    def p_values(self, figure: str) -> np.ndarray:
        """One-sided: is B one more stranger to A? All pairs that have strangers are ranked together; nan without."""
        found, at = np.full(len(self.near), np.nan), self.near
        if at.any():
            found[at] = strangers.above_strangers(
                self.figure[figure][at], self.effect_b[at], self.stranger[figure][at], self.effects[at]
            )
        return found

    def share(self, figure: str) -> np.ndarray:
        """Per bit that the two say at all: what can be compared without strangers."""
        return self.figure[figure] / (self.effect + 1e-9)


def edit(
    evaluation: Evaluation,
    chosen: list[Chosen],
    dev: Mapping[Site, Fired],
    test: Mapping[Site, Fired],
    rng: np.random.Generator,
) -> Edited:
    """At least one pair; as many contexts of each."""
    system, split = evaluation.system, evaluation.split
    stratum = np.repeat(np.arange(len(chosen)), [len(part.units) for part in chosen])
    n = len(stratum)
    ends = np.ones((n, 2), np.float32)  # of the step from low values to high ones, which is not read here
    frames = random_frames(n, DRAWS, system.model.config.hidden_size, rng)
    units = np.concatenate([part.units for part in chosen])
    pairs = PairTable([part.stratum for part in chosen], stratum, units, ends, ends, np.zeros(n), frames)
    contexts = PairContexts.cat([part.contexts for part in chosen])
    probed = probe(system, split, pairs, contexts, chosen, dev, test, rng)

    def report(done: int, total: int) -> None:
        log.debug("%s: %d of %d contexts", system.name, done, total)

    return _means(run(system, split, contexts, probed.pairs, report), probed.near)


def _means(found: PairEffects, near: np.ndarray) -> Edited:
    def of_pair(values: np.ndarray) -> np.ndarray:
        return values.reshape(len(near), -1, *values.shape[1:]).mean(1)

    return Edited(
        {name: of_pair(found.real[name]) for name in FIGURES},
        {name: of_pair(found.stranger[name]) for name in FIGURES},
        of_pair(found.real["effect"]),
        of_pair(found.real["effect_b"]),
        of_pair(found.stranger["effect"]),
        of_pair(found.floor["excess"]).mean(-1),
        near,
    )
