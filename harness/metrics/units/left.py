"""What the row's metrics left of single units and pairs: autointerp's explanations, joint's strongest pairs.

Their files are read by what they say, without their code: what only explains or edits units must not make all reports
anew. The tests hold the names.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.metrics.units.reports import Explanation

Named = tuple[str, int]  # site and number of a unit
EXPLAINED, PAIRS = "units.parquet", "pairs.json"  # as those metrics name their files
CONTROLS = ("constant", "another_unit", "shuffled", "random_dictionary")  # of autointerp: nothing to find in them
_STATES = {"neither": "neither", "only A": "a", "only B": "b", "both": "both"}  # joint's names of them, and ours


@dataclass(frozen=True)
class StrongPair:
    """A pair that joint edited: mean excess and floor in bits; the first of its contexts, and what the model says next
    there, by state: tokens with their probabilities. a and b are the two units in this order."""

    a: Named
    b: Named
    excess: float
    floor: float
    text: str
    token: str
    next: dict[str, tuple[tuple[str, float], ...]]

    def seen_from(self, unit: Named) -> StrongPair:
        """The same with `unit` as a."""
        if unit == self.a:
            return self
        swapped = {"a": self.next["b"], "b": self.next["a"]}
        return StrongPair(self.b, self.a, self.excess, self.floor, self.text, self.token, {**self.next, **swapped})


@dataclass(frozen=True)
class Left:
    """explained: in the order of autointerp's file. pairs: the strongest first. Empty where a metric was not asked for,
    or found none."""

    explained: dict[Named, Explanation]
    pairs: tuple[StrongPair, ...]

    @staticmethod
    def read(autointerp: Path | None, joint: Path | None) -> Left:
        """From the folders of the two metrics' stages."""
        explained: dict[Named, Explanation] = {}
        pairs: tuple[StrongPair, ...] = ()
        if autointerp is not None and (autointerp / EXPLAINED).is_file():
            explained = _explained(autointerp / EXPLAINED)
        if joint is not None and (joint / PAIRS).is_file():
            data = json.loads((joint / PAIRS).read_text(encoding="utf-8"))
            pairs = tuple(_pair(pair) for pair in data["pairs"] if pair["contexts"])
        return Left(explained, pairs)


def _explained(file: Path) -> dict[Named, Explanation]:
    import pyarrow.parquet

    return {
        (row["site"], row["unit"]): _explanation(row) for row in pyarrow.parquet.read_table(file).to_pylist()
    }  # fmt: skip


def _explanation(row: dict[str, Any]) -> Explanation:
    names = list(row)
    main = names[names.index("by") + 1]  # SCORER_STATISTIC of the first scorer
    scorers = [name.removeprefix("constant_") for name in names if name.startswith("constant_")]
    scorer = next(name for name in scorers if main.startswith(f"{name}_"))
    controls = {control: row[f"{control}_{scorer}"] for control in CONTROLS}
    scored = {control: value for control, value in controls.items() if value is not None}
    best = max(scored, key=scored.__getitem__, default=None)
    return Explanation(
        text=row["explanation"],
        by=row["by"],
        scorer=scorer,
        score=row[main],
        control=best,
        control_score=None if best is None else scored[best],
    )


def _pair(pair: dict[str, Any]) -> StrongPair:
    (site_a, site_b), (a, b), first = pair["sites"], pair["units"], pair["contexts"][0]
    said = {
        ours: tuple((outcome["token"], float(outcome["p"])) for outcome in first["next"][theirs])
        for theirs, ours in _STATES.items()
    }
    return StrongPair((site_a, a), (site_b, b), pair["excess"], pair["floor"], first["text"], first["token"], said)
