"""Gives every stage of a plan: from the store where it is finished, else produced, after what it needs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.base.errors import Interrupted
from harness.base.stop import STOP
from harness.corpus import Corpus, floor
from harness.corpus.labels import Labels
from harness.run.plan import Plan, PlannedRow, Text
from harness.run.refused import refuse_model, refuse_system
from harness.run.search import Trial
from harness.run.stages import (
    codes,
    corpus,
    dictionary,
    labels,
    metric,
    reference,
    spliced_trial,
    subject,
    trial,
    units,
)
from harness.run.stages.subject import Start, SubjectStages
from harness.store.stages import Stage, Store
from harness.systems.evaluation import Evaluation
from harness.tables.measurement import Measurement
from harness.training.dictionary_record import DictionaryRecord
from harness.training.record import CURVE_FILE, TrainingRecord
from harness.training.subject import Teacher
from harness.training.trials import Outcome
from models.subject import Subject

log = logging.getLogger(__name__)


class Workshop:
    """One plan and the store. The plan's corpus is produced when the workshop opens; everything else when it is asked
    for, also the corpus in another model's tokens."""

    def __init__(self, plan: Plan, store: Store) -> None:
        self.plan, self.store = plan, store
        self._read: dict[str, Corpus] = {}
        self.corpus = self.text(plan.text)

    def text(self, text: Text) -> Corpus:
        """The corpus in the tokens of one tokenizer."""
        stage = text.stage
        if stage.key not in self._read:
            folder = self._finished(stage, lambda work: corpus.produce(text.config, stage.label, work))
            self._read[stage.key] = corpus.read(folder)
        return self._read[stage.key]

    def reference(self, name: str) -> list[Measurement]:
        """The figures of an n-gram model."""
        text, evaluation = self.plan.experiment.corpus, self.plan.experiment.evaluation
        return reference.read(
            self._finished(
                self.plan.references[name], lambda work: reference.produce(name, self.corpus, text, evaluation, work)
            )
        )

    def subject(self, stages: SubjectStages, follow: Callable[[Path], None] | None = None) -> Path:
        """The folder of a trained subject. `follow` is told where the curve is written while it trains."""
        if (stored := self.store.finished(stages.stage)) is not None:
            return stored
        teacher = self._teacher(stages)

        def produce(work: Path) -> None:
            if follow:
                follow(work / CURVE_FILE)
            subject.produce(self._asked(stages), teacher, stages.stage.label, work)

        return self._finished(stages.stage, produce)

    def trial(self, asked: Trial) -> Outcome:
        """What a trial came to, made now unless it is stored."""
        numerics = self.plan.numerics
        if asked.dictionary is None:

            def produce(work: Path) -> None:
                trial.produce(self._asked(asked.trained), asked.stage.label, work)

        else:
            trained, learnt = self.subject(asked.trained), self._trial_dictionaries(asked)
            spec = asked.spec.dictionary
            assert spec is not None

            def produce(work: Path) -> None:
                spliced_trial.produce(trained, learnt, spec, self.corpus, numerics, work)

        with self.store.in_use(asked.stages()):
            return Outcome.load(self._finished(asked.stage, produce))

    def _trial_dictionaries(self, asked: Trial) -> Path:
        stage, spec = asked.dictionary, asked.spec.dictionary
        assert stage is not None
        assert spec is not None

        def produce(work: Path) -> None:
            model = subject.read(self.subject(asked.trained), self.plan.numerics.device)
            wanted = {stage.key: dictionary.WantedDictionaries(spec, work)}
            dictionary.produce(wanted, model, self.corpus, asked.trained.seed, stage.label)

        return self._finished(stage, produce)

    def dictionaries(self, row: PlannedRow) -> Path:
        """The folder of a row's dictionaries, trained in one pass of the subject with those of all rows like it."""
        assert row.dictionary is not None
        assert row.spec.dictionary is not None
        if (stored := self.store.finished(row.dictionary)) is not None:
            return stored
        together = {
            stage.key: (stage, spec, name)
            for stage, spec, name in self._learnt(row.subject)
            if stage.key == row.dictionary.key or dictionary.learnt_together(row.spec.dictionary, spec)
        }

        def produce(work: dict[str, Path]) -> None:
            wanted = {key: dictionary.WantedDictionaries(together[key][1], folder) for key, folder in work.items()}
            label = f"dictionaries of {row.spec.subject.name}, seed {row.seed}"
            log.info("%s: %s", label, ", ".join(together[key][2] for key in wanted))
            model = self._model(row, self.subject(row.trained))
            dictionary.produce(wanted, model, self.text(row.text), row.seed, label)

        self.store.run_together([stage for stage, _, _ in together.values()], produce)
        _stop_if_asked()
        return self.store.root / row.dictionary.folder

    def evaluation(self, row: PlannedRow) -> Evaluation:
        """The row's system on the evaluation split. Its codes are there once `codes` was asked for."""
        folder, device = self.subject(row.trained), self.plan.numerics.device
        cost = TrainingRecord.load(folder).cost()
        grafts = None
        if row.spec.dictionary is not None:
            learnt = self.dictionaries(row)
            grafts = dictionary.read(learnt, row.spec.dictionary, device)
            cost = DictionaryRecord.load(learnt).added_to(cost)
        model = self._model(row, folder)
        encoded = self.store.root / row.codes.folder
        return codes.evaluation_of(
            row.spec.name,
            model,
            grafts,
            self.text(row.text),
            self.plan.experiment.evaluation,
            cost,
            encoded,
            partial(self._floor, row.text),
            partial(self._labels, row.text),
        )

    def _model(self, row: PlannedRow, folder: Path) -> Subject:
        model = subject.read(folder, self.plan.numerics.device)
        model.config.eos_token_id = self.text(row.text).info.end_of_text  # what begins a document here
        return model

    def _floor(self, text: Text, sequences: int) -> NDArray[np.float64] | None:
        read = self.text(text)
        return floor.log_probabilities(text.config, read.eval, read.documents.__getitem__, sequences)

    def _labels(self, text: Text, split: str) -> Labels:
        stage = text.labels
        assert stage is not None, "the metric does not say that it reads labels"

        def produce(work: Path) -> None:
            labels.produce(text.config, self.text(text), self.plan.experiment.evaluation, stage.label, work)

        return labels.read(self._finished(stage, produce), split)

    def codes(self, row: PlannedRow, evaluation: Callable[[], Evaluation]) -> Path:
        def produce(work: Path) -> None:
            made = evaluation()
            refuse_system(made.system, made.split)
            codes.produce(made, row.codes.label, work)

        return self._finished(row.codes, produce)

    def metric(self, row: PlannedRow, name: str, evaluation: Callable[[], Evaluation]) -> Path:
        """The folder of what a metric found. Raises what the metric raises."""
        stage, options, encoded = row.metrics[name], self.plan.metric_options[name], self.store.root / row.codes.folder
        return self._finished(
            stage, lambda work: metric.produce(name, options, evaluation(), encoded, stage.label, work)
        )

    def units(self, row: PlannedRow, evaluation: Callable[[], Evaluation]) -> Path:
        """The folder of the reports of a row's units, once the metrics that they read are stored."""
        assert row.units is not None
        stage = row.units
        found = {name: self.store.root / row.metrics[name].folder for name in units.READS if name in row.metrics}
        return self._finished(stage, lambda work: units.produce(evaluation(), stage, found, work))

    def kernels(self, row: PlannedRow) -> dict[str, str]:
        """Op → implementation that ran while the row's subject and dictionaries were trained."""
        ran = dict(TrainingRecord.load(self.subject(row.trained)).kernels)
        return ran if row.dictionary is None else ran | DictionaryRecord.load(self.dictionaries(row)).kernels

    def _learnt(self, of: Stage) -> list[tuple[Stage, dictionary.DictionarySpec, str]]:
        """Stage, dictionaries and row of every planned row with dictionaries on this subject."""
        return [
            (row.dictionary, row.spec.dictionary, row.spec.name)
            for row in self.plan.rows
            if row.dictionary is not None and row.spec.dictionary is not None and row.subject.key == of.key
        ]

    def _teacher(self, stages: SubjectStages) -> Teacher | None:
        if stages.teacher is None:
            return None
        if isinstance(stages.teacher, Path):
            return subject.read_foreign_teacher(stages.teacher, self.plan.numerics.device)
        return subject.read_teacher(self.subject(stages.teacher), self.plan.numerics.device)

    def _asked(self, stages: SubjectStages) -> Start:
        """What training starts from. Raises BadInput where a layer is not what it says; other people's models are asked
        when they are read."""
        start = self._start(stages)
        if stages.spec.pretrained is None:
            refuse_model(stages.spec.name, start.model(), self.corpus.train)
        return start

    def _start(self, stages: SubjectStages) -> Start:
        dense = None if stages.origin is None else self.subject(stages.origin)
        return Start(stages.spec, stages.seed, self.corpus, self.plan.numerics, dense)

    def _finished(self, stage: Stage, produce: Callable[[Path], None]) -> Path:
        """The folder of a stage, produced unless it is stored. Raises Interrupted if SIGTERM came meanwhile."""

        def said(work: Path) -> None:
            log.info("%s", stage.label)  # by the one that computes it, not by those that wait for it
            produce(work)

        folder = self.store.run(stage, said)
        _stop_if_asked()
        return folder


def _stop_if_asked() -> None:
    """SIGTERM too late for training to stop: everything is stored."""
    if STOP.requested:
        raise Interrupted("stopped; run the same command to continue")
