"""The subjects of a comparison: each trained unless it is stored, after what it needs (a teacher, a dense model that it
starts from, trials of learning rates)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

import models
from harness.base.errors import Diverged, Interrupted
from harness.base.progress import stage_progress
from harness.base.stop import STOP
from harness.corpus import Corpus
from harness.run.plan import SubjectStages
from harness.store.stages import Stage, Store
from harness.training import upcycling
from harness.training.config import LearningRateTrials, TrainingConfig
from harness.training.objective import dev_cross_entropy
from harness.training.record import CURVE_FILE, TrainingRecord
from harness.training.subject import Teacher, save_untrained, train_subject
from harness.training.trials import Outcome, Trials, chosen, trial_config

log = logging.getLogger(__name__)


def computed(store: Store, stage: Stage, produce: Callable[[Path], None]) -> Path:
    """The folder of a stage, produced unless it is stored. Raises Interrupted if SIGTERM came meanwhile."""

    def said(work: Path) -> None:
        log.info("%s", stage.label)  # by the one that computes it, not by those that wait for it
        produce(work)

    folder = store.run(stage, said)
    stop_if_asked()
    return folder


def stop_if_asked() -> None:
    """SIGTERM too late for training to stop: everything is stored."""
    if STOP.requested:
        raise Interrupted("stopped; run the same command to continue")


@dataclass(frozen=True)
class Subjects:
    """trials: None where no subject has any; they are run with `first_seed`, whichever seed they are for."""

    store: Store
    corpus: Corpus
    trials: LearningRateTrials | None
    first_seed: int
    device: str
    dtype: str

    def trained(self, stages: SubjectStages, follow: Callable[[Path], None] | None = None) -> Path:
        """The folder of the subject's stage. `follow` is told where the curve is written while it trains."""
        spec = stages.spec
        if (stored := self.store.finished(stages.stage)) is not None:
            return stored
        for origin in stages.origins.values():
            self.trained(origin)
        teacher, trials = self._teacher(stages), self._trials(stages)

        def produce(work: Path) -> None:
            if follow:
                follow(work / CURVE_FILE)
            if spec.untrained:
                save_untrained(self._initial(stages, stages.seed), self.corpus.train.length, work)
            else:
                training = spec.training if trials is None else spec.training.scaled(trials.scale)
                self._train(stages, training, stages.seed, work, stages.stage.label, teacher)
                if stages.origins:
                    upcycling.charge(work, self.store.root / stages.origins[stages.seed].stage.folder)
            if trials is not None:
                trials.save(work)
            self.corpus.tokenizer().save_pretrained(work / "model")

        return computed(self.store, stages.stage, produce)

    def model(self, stages: SubjectStages) -> PreTrainedModel:
        """The trained subject, in evaluation mode."""
        return self._loaded(self.trained(stages) / "model").eval()

    def _loaded(self, folder: Path) -> PreTrainedModel:
        model: Any = AutoModelForCausalLM.from_pretrained(folder)
        return model.to(self.device)

    def _initial(self, stages: SubjectStages, seed: int) -> PreTrainedModel:
        if stages.origins:
            dense = self.store.root / stages.origins[seed].stage.folder / "model"
            upcycled: Any = upcycling.initial(stages.spec.architecture, stages.spec.settings, dense, seed)
            return upcycled.to(self.device)
        torch.manual_seed(seed)
        model = models.build(
            stages.spec.architecture,
            **stages.spec.settings,
            vocab_size=self.corpus.info.vocab_size,
            max_position_embeddings=self.corpus.train.length,
            bos_token_id=self.corpus.info.end_of_text,
            eos_token_id=self.corpus.info.end_of_text,
        )
        return cast(PreTrainedModel, model.to(self.device))  # pyright: ignore[reportArgumentType]

    def _train(
        self,
        stages: SubjectStages,
        training: TrainingConfig,
        seed: int,
        work: Path,
        label: str,
        teacher: Teacher | None = None,
    ) -> PreTrainedModel:
        model = self._initial(stages, seed)
        with stage_progress(label) as report:
            train_subject(
                model,
                training,
                self.corpus.train,
                seed=seed,
                work=work,
                report=report,
                device=self.device,
                dtype=self.dtype,
                teacher=teacher,
                dev=self.corpus.dev,
            )
        return model

    def _teacher(self, stages: SubjectStages) -> Teacher | None:
        if stages.teacher is None:
            return None
        if isinstance(stages.teacher, Path):
            return Teacher(self._loaded(stages.teacher), 0.0)
        folder = self.trained(stages.teacher)
        return Teacher(self._loaded(folder / "model"), TrainingRecord.load(folder).training_flops)

    def _trials(self, stages: SubjectStages) -> Trials | None:
        """Runs the trials of a subject and chooses among them."""
        wanted = self.trials
        if wanted is None or not stages.trials:
            return None
        outcomes = {}
        for scale, stage in stages.trials.items():

            def produce(work: Path, scale: float = scale, label: str = stage.label) -> None:
                training = trial_config(stages.spec.training, scale, wanted)
                try:
                    model = self._train(stages, training, self.first_seed, work, label)
                except Diverged as error:
                    log.warning("%s: %s", label, error)
                    outcome = Outcome(None, error.training_flops)
                else:
                    loss = dev_cross_entropy(model, self.corpus.dev)
                    outcome = Outcome.of(loss, TrainingRecord.load(work).training_flops)
                outcome.save(work)

            outcomes[scale] = Outcome.load(computed(self.store, stage, produce))
        return chosen(outcomes, stages.spec.name)
