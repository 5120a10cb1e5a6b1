"""`joint_controls`: what the estimators say of planted worlds, how often they are wrong and how much they need."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import stats

from harness.base.files import write_atomically
from harness.bench.joint_worlds import WORLDS, PairFigures, World, run
from harness.metrics.joint import meaning, strangers
from harness.metrics.joint.excess import above_floor

LEVEL = 0.05
CONTEXTS = (10, 25, 50, 100)


@dataclass(frozen=True)
class ControlLine:
    """One world at one number of contexts a pair. Means over pairs, in bits. flagged: share of pairs whose excess is
    above that of strangers at 5%, with the ends of its 95% interval (Wilson); over_strangers: the trimmed mean ratio of
    the two, per bit that B says alone. conjunction_flagged: likewise of the conjunction; code_flagged: of these the
    pairs whose meaning is lost where both fire. floor_flagged: above the floor of random directions, shuffled_flagged:
    the same with one unit's values shuffled; magnitude_flagged: for the step between low and high values."""

    world: str
    truth: str
    combines: bool | None
    contexts: int
    pairs: int
    excess: float
    floor: float
    effect: float
    conjunction: float
    conjunction_floor: float
    novel_top: float
    flagged: float
    low: float
    high: float
    over_strangers: float
    conjunction_flagged: float
    code_flagged: float
    floor_flagged: float
    magnitude_flagged: float
    shuffled_flagged: float | None


@dataclass(frozen=True)
class ControlReport:
    lines: list[ControlLine]
    seconds: float

    def false_positives(self) -> float:
        """The largest share of pairs flagged in a world that combines nothing."""
        return max(line.flagged for line in self.lines if line.combines is False)

    def codes(self, world: str) -> float:
        """Share of a world's pairs that are called a code, with the most contexts."""
        return [line.code_flagged for line in self.lines if line.world == world][-1]

    def power(self, nats: float = 1.0) -> dict[int, float]:
        """Contexts → share of pairs found that carry an AND of this strength."""
        return {line.contexts: line.flagged for line in self.lines if line.world == f"and_{nats:g}"}


def measure(out: Path, pairs: int = 200, seed: int = 0) -> ControlReport:
    """Runs every world at every number of contexts; leaves table.md and table.json in `out`."""
    started = time.perf_counter()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # hundreds of small products: threads only get in each other's way
    try:
        lines = [
            line
            for place, world in enumerate(WORLDS)
            for line in lines_of(world, pairs, np.random.default_rng([seed, place]))
        ]
    finally:
        torch.set_num_threads(threads)
    report = ControlReport(lines, time.perf_counter() - started)
    data = {"level": LEVEL, "seed": seed, "lines": [asdict(line) for line in lines]}
    write_atomically(out / "table.json", (json.dumps(data, indent=1, ensure_ascii=False) + "\n").encode())
    write_atomically(out / "table.md", markdown(report).encode())
    return report


def lines_of(world: World, pairs: int, rng: np.random.Generator) -> list[ControlLine]:
    """A line for each number of contexts; fewer are the first of the many."""
    most = max(CONTEXTS)
    drawn = run(world, pairs, most, rng)
    apart = None
    if world.and_nats and world.code == "sum":
        cut = run(world, pairs, most, rng, shuffle=True).over()
        apart = float((above_floor(cut.excess, cut.floor) < LEVEL).mean())
    lines = []
    for contexts in CONTEXTS:
        found = drawn.over(contexts)
        against = found.effect_b, found.stranger, found.stranger_effect
        flags = strangers.above_strangers(found.excess, *against) < LEVEL
        conjunctions = found.effect_b, found.stranger_conjunction, found.stranger_effect
        conjoined = strangers.above_strangers(found.conjunction, *conjunctions) < LEVEL
        ends = stats.binomtest(int(flags.sum()), pairs).proportion_ci(method="wilson")
        means = {
            "excess": found.excess, "floor": found.floor, "effect": found.effect, "conjunction": found.conjunction,
            "conjunction_floor": found.floor_conjunction, "novel_top": found.novel, "flagged": flags,
            "conjunction_flagged": conjoined,
            "code_flagged": conjoined & (_lost(drawn, contexts) < LEVEL),
            "floor_flagged": above_floor(found.excess, found.floor) < LEVEL,
            "magnitude_flagged": above_floor(found.magnitude, found.magnitude_floor) < LEVEL,
        }  # fmt: skip
        ratios = strangers.log_ratios(found.excess, *against)
        lines.append(
            ControlLine(
                world=world.name,
                truth=world.truth,
                combines=world.combines,
                contexts=contexts,
                pairs=pairs,
                low=float(ends.low),
                high=float(ends.high),
                shuffled_flagged=apart if contexts == most else None,
                over_strangers=float(np.exp(strangers.trimmed_mean(ratios))),
                **{name: float(values.mean()) for name, values in means.items()},
            )
        )
    return lines


def _lost(drawn: PairFigures, contexts: int) -> np.ndarray:
    """p-values that less than half of the meaning is left where both fire. `[pairs]`"""
    together = np.stack([drawn.meaning_a, drawn.meaning_b], -1)[:, :contexts]
    alone = np.stack([drawn.alone_a, drawn.alone_b], -1)[:, 0]
    return meaning.lost(meaning.kept(together, alone))


def markdown(report: ControlReport) -> str:
    power = ", ".join(f"{share:.1%} at {contexts}" for contexts, share in report.power().items())
    lines = [
        "# Joint structure on planted worlds",
        "",
        "Pairs of units whose joint meaning is known, each in a random subject of its own (a random layer, a live norm "
        "and a linear head downstream; harness/bench/joint_worlds.py). Flagged: share of pairs whose excess is above "
        f"that of strangers (units that never fire with A, as strong as B) at the level {LEVEL:.0%}, with its 95% "
        "interval: false positives in worlds that combine nothing, power in those that do. Code: the conjunction is "
        "above that of strangers and the units' own meaning is lost where both fire: a code read out linearly is "
        "missed by the excess and seen by this. Floor flagged: against random write directions, which the anisotropic "
        "world fools. A magnitude code is seen by the step between low and high values. Bits, means over pairs.",
        "",
        f"Largest false-positive rate: {report.false_positives():.1%}. AND codes of 1 nat found: {power} contexts a "
        f"pair. Called a code with {max(CONTEXTS)} contexts: {report.codes('linear'):.1%} of linear codes, "
        f"{report.codes('composition'):.1%} of compositions.",
        "",
        "These rates are the primary estimator's. Statistics of codes alone (lift, interaction gain) flag common "
        "causes unless the strata are the true ones; their rates are not claimed here.",
        "",
        "| world | truth | contexts | excess | effect | flagged | over strangers | conjunction flagged | code flagged "
        "| floor flagged | magnitude flagged | new top | floor flagged when shuffled |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for line in report.lines:
        apart = "" if line.shuffled_flagged is None else f"{line.shuffled_flagged:.1%}"
        lines.append(
            f"| {line.world} | {line.truth} | {line.contexts} | {line.excess:.3f} | {line.effect:.2f} "
            f"| {line.flagged:.1%} [{line.low:.1%}, {line.high:.1%}] | {line.over_strangers:.2f} "
            f"| {line.conjunction_flagged:.1%} | {line.code_flagged:.1%} | {line.floor_flagged:.1%} "
            f"| {line.magnitude_flagged:.1%} | {line.novel_top:.0%} | {apart} |"
        )
    return "\n".join([*lines, ""])
