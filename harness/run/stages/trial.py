"""The stage `trial` of a subject: one short training, and what it comes to on dev."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

from harness.base.errors import Diverged
from harness.run.stages import subject
from harness.run.stages.subject import Start, SubjectStages
from harness.store.stages import Stage
from harness.training.objective import dev_cross_entropy
from harness.training.record import TrainingRecord
from harness.training.trials import Outcome

log = logging.getLogger(__name__)


def stage(trained: SubjectStages, label: str) -> Stage:
    """Keyed as the training of the subject would be. The model is not kept, and one that diverges is an outcome too."""
    modules = (__name__, *trained.stage.modules)
    return dataclasses.replace(trained.stage, kind="trial", label=label, modules=modules)


def produce(start: Start, label: str, work: Path) -> None:
    """Leaves what the trial came to: no loss where it diverged."""
    try:
        model = subject.train(start, start.spec.training, label, work)
    except Diverged as error:
        log.warning("%s: %s", label, error)
        outcome = Outcome(None, error.training_flops)
    else:
        loss = dev_cross_entropy(model, start.corpus.dev)
        outcome = Outcome.of(loss, TrainingRecord.load(work).training_flops)
    outcome.save(work)
