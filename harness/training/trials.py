"""Choosing by trials: what is tried, what each try comes to on dev, and what is taken.

A trial of a subject trains it on next-token cross entropy, whatever its target (what is chosen are its shape and the
optimiser's rates); a trial of dictionaries trains them and the subject that they leave tokens for. What counts is the
cross entropy on dev, of dictionaries that of the model which runs through them. A trial that diverges has lost, and
costs what it took until then. What suits a short run may be too small or too fast for a long one: trials get a stated
share of the real budget, and the share stands in the table.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

OUTCOME = "trial.json"


@dataclass(frozen=True)
class Outcome:
    """What one trial gave: dev cross entropy in nats per token, None where it diverged; and the FLOPs it took."""

    dev: float | None
    flops: float

    @staticmethod
    def of(dev: float, flops: float) -> Outcome:
        return Outcome(dev if math.isfinite(dev) else None, flops)

    @staticmethod
    def load(folder: Path) -> Outcome:
        return Outcome(**json.loads((folder / OUTCOME).read_text()))

    def save(self, folder: Path) -> None:
        (folder / OUTCOME).write_text(json.dumps(asdict(self)))


@dataclass(frozen=True)
class Tried:
    """One candidate and its trials, one for every seed. Not yet made: `outcomes` is empty."""

    label: str
    outcomes: tuple[Outcome, ...]

    @property
    def dev(self) -> float:
        """Mean over the seeds; infinite where one diverged or none was made."""
        losses = [math.inf if outcome.dev is None else outcome.dev for outcome in self.outcomes]
        return sum(losses) / len(losses) if losses else math.inf


@dataclass(frozen=True)
class Round:
    """Candidates that differ in one thing (`what`), and the one that was taken."""

    what: str
    tried: tuple[Tried, ...]
    taken: int

    def note(self) -> str:
        said = []
        for one in self.tried:
            diverged = sum(outcome.dev is None for outcome in one.outcomes)
            says = f"{one.dev:.3f}" if math.isfinite(one.dev) else "diverged" if diverged else "not tried yet"
            said.append(f"{one.label} {says}")
        return f"{self.what} {self.tried[self.taken].label} (nat/token: {', '.join(said)})"


@dataclass(frozen=True)
class Choice:
    """All that was tried for a row. share: of the row's budget, that every trial gets; trials: how many there are, each
    counted once; planned_flops: what they take by the plan; flops: what those took that were made."""

    rounds: tuple[Round, ...]
    share: float
    trials: int
    planned_flops: float
    flops: float

    @property
    def made(self) -> bool:
        return all(tried.outcomes for one in self.rounds for tried in one.tried)

    def note(self) -> str:
        each = f"{self.share:g} of the row's budget"
        rounds = "; ".join(one.note() for one in self.rounds)
        return f"chosen on dev by {self.trials} trials of {each} each: {rounds}"


def chosen(what: str, tried: Sequence[Tried], slowest: int = 0) -> Round:
    """The candidate with the least dev cross entropy; of equals, and while none was tried, the first; where every one
    diverged, `slowest`: a trial ends no comparison."""
    if all(one.outcomes and math.isinf(one.dev) for one in tried):
        return Round(what, tuple(tried), slowest)
    return Round(what, tuple(tried), min(range(len(tried)), key=lambda at: (tried[at].dev, at)))
