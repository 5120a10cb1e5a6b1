"""The units of a system, or the random directions in their place, on both splits: what every score is taken of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.metrics.concepts.activity import Activity, Integers
from harness.metrics.concepts.detection import LEAST, Detection, detect
from harness.metrics.concepts.predictions import Scores, best_units, expected_best, of_units, score_predictions
from harness.metrics.concepts.tokens import Asked, Held
from harness.tables.measurement import Direction, Measurement

VERSION = 1


@dataclass(frozen=True)
class Side:
    """living: units that fire on `LEAST` tokens of dev or more; drawn: of those, equally many in every system."""

    dev: Activity
    eval: Activity
    detection: Detection
    living: Integers
    drawn: Integers

    def best_of_drawn(self, held: Held, resamples: int) -> Scores:
        """Of the best unit: the mean over all draws of equally many, with the spread of the draw that was made."""
        scores = score_predictions(self.told_by_drawn(), held, resamples)
        return scores.moved_to(expected_best(self.detection, self.living, len(self.drawn)))

    def told_by_drawn(self) -> list[NDArray[np.int32]]:
        return of_units(self.detection, self.eval, best_units(self.detection, self.drawn))

    def told_by_living(self) -> list[NDArray[np.int32]]:
        return of_units(self.detection, self.eval, best_units(self.detection, self.living))


def living(dev: Activity) -> Integers:
    return np.flatnonzero(dev.firings() >= LEAST)


def side(dev: Activity, evaluation: Activity, asking: Asked, drawn: int, seed: int) -> Side:
    alive = living(dev)
    chosen = np.sort(np.random.default_rng([seed, 6]).choice(alive, drawn, replace=False))
    return Side(dev, evaluation, detect(dev, asking.dev, evaluation, asking.eval), alive, chosen)


@dataclass(frozen=True)
class Means:
    """How a mean over concepts is stated."""

    asking: Asked
    resamples: int

    def of(
        self, name: str, scores: Scores, direction: Direction = "higher", over: Integers | None = None
    ) -> Measurement:
        """The mean over the concepts `over` (default: all), with documents resampled."""
        places = np.arange(len(self.asking.concepts)) if over is None else over
        return Measurement(
            f"concepts/{name}",
            float(scores.value[places].mean()),
            "F1",
            direction,
            VERSION,
            scores.replicates[:, places].mean(1),
            "documents",
        )

    def beside_random(
        self, name: str, own: Scores, random: Scores, direction: Direction = "higher", over: Integers | None = None
    ) -> list[Measurement]:
        """A figure, the same of random directions, and the difference: the figure less what directions give."""
        return [
            self.of(name, own, direction, over),
            self.of(f"{name}_random", random, "none", over),
            self.of(f"{name}_above_random", own.less(random), direction, over),
        ]

    def by_kind(self, name: str, own: Scores, random: Scores, direction: Direction = "higher") -> list[Measurement]:
        """`<name>_<kind>`, `<name>_<kind>_random` and `<name>_<kind>_above_random`."""
        return [
            one
            for kind, places in self.asking.kinds().items()
            for one in self.beside_random(f"{name}_{kind}", own, random, direction, places)
        ]


def plain(name: str, value: float, unit: str, direction: Direction = "none") -> Measurement:
    """Without an interval."""
    return Measurement(f"concepts/{name}", value, unit, direction, VERSION)


def site_of(bounds: Sequence[int], units: Integers, place: int) -> Integers:
    """Of `units` those of the site at `place`."""
    return units[(units >= bounds[place]) & (units < bounds[place + 1])]
