"""Learning-rate trials: short trainings that choose, on dev, by what a subject's learning rates are scaled.

Every subject gets equally many. A trial trains on next-token cross entropy whatever the target (what is chosen are the
optimiser's rates), with every rate scaled by one factor, for a stated number of tokens; the factor with the least dev
cross entropy is taken. A trial that diverges has lost, and costs what it took until then. Rates that suit a short run
may be too high for a long one: the schedule falls to zero in both.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.base.errors import HarnessError
from harness.training.config import CrossEntropy, LearningRateTrials, TrainingConfig

RECORD = "trials.json"
OUTCOME = "trial.json"


@dataclass(frozen=True)
class Outcome:
    """What one trial gave: dev cross entropy in nats per token, None where the trial diverged; and its FLOPs."""

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
class Trials:
    """What was tried for a subject: factor -> dev cross entropy (nats per token; None: diverged), the factor chosen,
    FLOPs of all."""

    dev: dict[str, float | None]
    scale: float
    flops: float

    @staticmethod
    def load(folder: Path) -> Trials | None:
        path = folder / RECORD
        return Trials(**json.loads(path.read_text())) if path.exists() else None

    def note(self) -> str:
        """For the table: what was chosen; at the edge of what was tried a better factor may lie beyond."""
        tried = [float(scale) for scale in self.dev]
        edge = " (at the edge of those tried)" if self.scale in (min(tried), max(tried)) else ""
        named = [scale if loss is not None else f"{scale} (diverged)" for scale, loss in self.dev.items()]
        return f"learning rates x {self.scale:g}, of {', '.join(named)}{edge}"

    def save(self, folder: Path) -> None:
        (folder / RECORD).write_text(json.dumps(asdict(self), indent=1))


def trial_config(training: TrainingConfig, scale: float, trials: LearningRateTrials) -> TrainingConfig:
    """The training of one trial."""
    changed = {"target": CrossEntropy(), "sparsity": None, "tokens": trials.tokens, "checkpoints": 0}
    return training.model_copy(update=changed).scaled(scale)


def chosen(outcomes: dict[float, Outcome], subject: str) -> Trials:
    """The factor with the least dev cross entropy, the smaller one of equals. HarnessError: all diverged."""
    losses = {scale: outcome.dev for scale, outcome in outcomes.items() if outcome.dev is not None}
    tried = {f"{scale:g}": outcome.dev for scale, outcome in outcomes.items()}
    if not losses:
        raise HarnessError(
            f"{subject}: every learning-rate trial diverged (scales {', '.join(tried)}): "
            "add smaller ones to learning_rate_trials.scales or lower the row's learning rates"
        )
    best = min(losses, key=lambda scale: (losses[scale], scale))
    return Trials(tried, best, sum(outcome.flops for outcome in outcomes.values()))
