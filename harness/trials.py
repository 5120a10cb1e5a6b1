"""Learning-rate trials: short trainings that choose, on dev, by what a subject's learning rates are scaled.

Every subject gets equally many. A trial trains on next-token cross entropy whatever the target (what is chosen are the
optimiser's rates), with every rate scaled by one factor, for a stated number of tokens; the factor with the least dev
cross entropy is taken. Rates that suit a short run may be too high for a long one: the schedule falls to zero in both.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.training_config import CrossEntropy, LearningRateTrials, TrainingConfig

RECORD = "trials.json"


@dataclass(frozen=True)
class Trials:
    """What was tried for a subject: factor -> dev cross entropy (nats per token), the factor chosen, FLOPs of all."""

    dev: dict[str, float]
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
        return f"learning rates x {self.scale:g}, of {', '.join(self.dev)}{edge}"

    def save(self, folder: Path) -> None:
        (folder / RECORD).write_text(json.dumps(asdict(self), indent=1))


def trial_config(training: TrainingConfig, scale: float, trials: LearningRateTrials) -> TrainingConfig:
    """The training of one trial."""
    changed = {"target": CrossEntropy(), "sparsity": None, "tokens": trials.tokens, "checkpoints": 0}
    return training.model_copy(update=changed).scaled(scale)


def chosen(dev: dict[float, float], flops: float) -> Trials:
    """The factor with the least dev cross entropy; the smaller one of equals."""
    return Trials({f"{scale:g}": loss for scale, loss in dev.items()}, min(dev, key=lambda s: (dev[s], s)), flops)
