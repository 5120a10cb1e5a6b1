"""From an experiment to the stages that compute it: what determines what. Nothing runs here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from harness.base.errors import BadInput
from harness.base.settings import Strict, validated
from harness.corpus.config import CorpusConfig
from harness.corpus.references import FLOOR, REFERENCES
from harness.experiment.matching import Matching, matched
from harness.experiment.pretrained_rows import as_read_by
from harness.experiment.rows import SystemSpec, system_specs
from harness.experiment.schema import Experiment
from harness.metrics.metric import METRICS
from harness.run import search
from harness.run.numerics import Numerics
from harness.run.search import Outcomes, Trial
from harness.run.stages import codes, corpus, dictionary, labels, metric, reference, subject, units
from harness.run.stages.subject import SubjectStages
from harness.store.stages import Stage
from harness.training.trials import Choice
from kernels.registry import nearest


@dataclass(frozen=True)
class Text:
    """A corpus in one tokenizer's tokens. labels: None where no metric reads them."""

    config: CorpusConfig
    stage: Stage
    labels: Stage | None


@dataclass(frozen=True)
class PlannedRow:
    """One system with one seed, and its stages. text: the corpus as its subject reads it; labels: of its tokens. units:
    of the first seed only, and only where reports are asked for."""

    spec: SystemSpec
    seed: int
    text: Text
    trained: SubjectStages
    dictionary: Stage | None
    codes: Stage
    metrics: dict[str, Stage]
    units: Stage | None = None

    @property
    def subject(self) -> Stage:
        return self.trained.stage

    def stages(self) -> Iterator[Stage]:
        """Those of this row; what its subject needed before is `trained.before()`."""
        yield self.text.stage
        if self.text.labels:
            yield self.text.labels
        yield self.subject
        if self.dictionary:
            yield self.dictionary
        yield self.codes
        yield from self.metrics.values()
        if self.units:
            yield self.units


@dataclass(frozen=True)
class Plan:
    experiment: Experiment
    numerics: Numerics
    text: Text
    references: dict[str, Stage]
    rows: tuple[PlannedRow, ...]
    metric_options: dict[str, Strict]
    matching: Matching
    choices: dict[str, Choice]
    trials: tuple[Trial, ...]

    @property
    def decided(self) -> bool:
        """Whether every trial was made: else the first candidates stand where a choice will be."""
        return all(choice.made for choice in self.choices.values())

    def stages(self) -> list[Stage]:
        """Every stage once, in the order in which they can run."""
        everything = [self.text.stage, *self.references.values()]
        if self.text.labels:
            everything.append(self.text.labels)
        for trial in self.trials:
            everything += trial.stages()
        for row in self.rows:
            everything += [*row.trained.before(), *row.stages()]
        return list({stage.key: stage for stage in everything}.values())


def make_plan(experiment: Experiment, numerics: Numerics, outcome: Outcomes = lambda _trial: None) -> Plan:
    """Checks everything that can be checked before anything runs. `outcome`: knows, or makes, the trials that shapes
    and learning rates are chosen by. Raises BadInput."""
    options = _metric_options(experiment)
    labelled = any(METRICS[name].labels for name in options)
    text = _text(experiment.corpus, experiment, labelled)
    found = search.searched(system_specs(experiment), experiment, numerics, text.stage, outcome)
    matching = matched(experiment, found.specs)
    for name in experiment.references:
        if name not in (*REFERENCES, FLOOR):
            raise BadInput(f"references: no reference {name!r}; {nearest(name, [*REFERENCES, FLOOR])}")
        if name == FLOOR and experiment.corpus.log_probabilities("") is None:
            raise BadInput(
                f"references: {FLOOR!r}: corpus {experiment.corpus.kind!r} does not know its own probabilities"
            )
    references = {name: reference.stage(name, experiment.evaluation, text.stage) for name in experiment.references}
    rows = []
    for spec in matching.specs:
        read = text
        if spec.subject.pretrained is not None:
            read = _text(as_read_by(experiment.corpus, spec.subject.pretrained), experiment, labelled)
        rows += [_row(spec, seed, experiment, numerics, read, options) for seed in experiment.seeds]
    return Plan(experiment, numerics, text, references, tuple(rows), options, matching, found.choices, found.trials)


def _text(config: CorpusConfig, experiment: Experiment, labelled: bool) -> Text:
    stage = corpus.stage(config)
    return Text(config, stage, labels.stage(config, experiment.evaluation, stage) if labelled else None)


def _row(
    spec: SystemSpec, seed: int, experiment: Experiment, numerics: Numerics, read: Text, options: dict[str, Strict]
) -> PlannedRow:
    text, labelled = read.stage, read.labels
    name, evaluation = f"{spec.name}, seed {seed}", experiment.evaluation
    trained = subject.stages(spec.subject, seed, experiment, numerics, text)
    upstream, learnt = (text.key, trained.stage.key), None
    if spec.dictionary is not None:
        learnt = dictionary.stage(spec.name, spec.dictionary, seed, numerics, text, trained.stage)
        upstream = (*upstream, learnt.key)
    encoded = codes.stage(name, evaluation, numerics, upstream)
    measured = {}
    for metric_name, chosen in options.items():
        reads = (*upstream, encoded.key)
        if labelled is not None and METRICS[metric_name].labels:
            reads = (*reads, labelled.key)
        measured[metric_name] = metric.stage(metric_name, chosen, name, evaluation, numerics, reads)
    reported = None
    if evaluation.unit_reports and seed == experiment.seeds[0]:
        reported = units.stage(spec.name, seed, evaluation, _strongest(options), numerics, encoded, measured)
    return PlannedRow(spec, seed, read, trained, learnt, encoded, measured, reported)


def _strongest(options: dict[str, Strict]) -> int:
    """Units fire in their reports where they fire for those who explain them."""
    return getattr(options.get("autointerp"), "strongest", units.STRONGEST)


def _metric_options(experiment: Experiment) -> dict[str, Strict]:
    found = {}
    for name, raw in experiment.metrics.items():
        try:
            chosen = METRICS.named(name)
        except ValueError as error:
            raise BadInput(f"metrics: {error}") from None
        found[name] = validated(chosen.options, raw, where=f"metrics.{name}")
    return found
