"""Chooses shapes, shares and learning rates: which trials there are, in which order, and what a row becomes.

Every row of an experiment that says `search` gets the same number of trials of the same kinds:

1. subjects: the shapes that the file names for it (`search.shapes`; without any, the one it has), at the learning rates
   it has; then factors on all its learning rates (`search.rates`), at the shape that was best;
2. dictionaries, on the shape chosen for their subject: the parts of the budget that they get
   (`search.dictionary_shares`), then factors on their learning rate (`search.dictionary_rates`).

A trial gets `search.share` of what the row gets, in whatever the experiment matches, so that a cheaper shape sees more
tokens in its trials as it will in its training. Seeds of trials are none that a table has.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import models
from harness.base.errors import BadInput
from harness.base.row_name import RowName
from harness.experiment.budget import budget_of
from harness.experiment.dictionary_rows import DictionarySpec, dictionary_spec
from harness.experiment.matching import solve, unmatched
from harness.experiment.rows import SubjectSpec, SystemSpec
from harness.run.stages import dictionary as dictionary_stage
from harness.run.stages import spliced_trial, trial
from harness.run.stages import subject as subject_stage
from harness.run.stages.subject import SubjectStages
from harness.training.config import CrossEntropy
from harness.training.trials import Choice, Outcome, Round, Tried, chosen
from kernels.registry import nearest
from saes.pretrained import Pretrained
from saes.transcoder import TranscoderConfig

if TYPE_CHECKING:
    from harness.experiment.schema import Experiment, SearchConfig
    from harness.run.numerics import Numerics
    from harness.store.stages import Stage, Store

log = logging.getLogger(__name__)

FIRST_SEED = 1_000_000  # of trials


@dataclass(frozen=True)
class Trial:
    """One candidate with one seed, solved for the trial's share. `trained`: the stages of its subject, which a trial of
    a subject stands for and one of dictionaries needs."""

    spec: SystemSpec
    trained: SubjectStages
    dictionary: Stage | None
    stage: Stage
    flops: float  # planned

    def stages(self) -> list[Stage]:
        """What has to be there for its outcome, in order, and itself."""
        if self.dictionary is None:
            return [*self.trained.before(), self.stage]
        return [*self.trained.before(), self.trained.stage, self.dictionary, self.stage]


# What a trial came to; None where it was not made and nobody wants it made now.
Outcomes = Callable[[Trial], Outcome | None]


@dataclass(frozen=True)
class Searched:
    """Rows as they were chosen, row → what was tried, and the trials."""

    specs: list[SystemSpec]
    choices: dict[str, Choice] = field(default_factory=dict)
    trials: tuple[Trial, ...] = ()


def made_trials(store: Store) -> Outcomes:
    """Knows the trials that are in the store, and makes none."""

    def outcome(asked: Trial) -> Outcome | None:
        folder = store.finished(asked.stage)
        return None if folder is None else Outcome.load(folder)

    return outcome


def searched(
    specs: list[SystemSpec], experiment: Experiment, numerics: Numerics, corpus: Stage, outcome: Outcomes
) -> Searched:
    """Asks for the outcome of one trial after the other; later trials follow from earlier ones. Where an outcome is not
    known the first candidate stands for the choice. Raises BadInput."""
    if experiment.search is None:
        return Searched(specs)
    _check(specs, experiment, experiment.search)
    reasons = {spec.subject.name: None for spec in specs} | unmatched(specs, experiment)
    search = _Search(experiment, experiment.search, numerics, corpus, outcome, reasons)
    found = [search.row(spec) for spec in specs]
    return Searched(found, search.choices, tuple(search.trials))


@dataclass
class _Search:
    experiment: Experiment
    wanted: SearchConfig
    numerics: Numerics
    corpus: Stage
    outcome: Outcomes
    unmatched: dict[str, str | None]
    subjects: dict[str, SubjectSpec] = field(default_factory=dict)
    choices: dict[str, Choice] = field(default_factory=dict)
    trials: list[Trial] = field(default_factory=list)

    def row(self, spec: SystemSpec) -> SystemSpec:
        subject = self.subject(spec.subject)
        if spec.dictionary is None or not subject.trained_here:
            return replace(spec, subject=subject)
        # Sites follow from the shape that was chosen.
        part = RowName.of(spec.name).dictionary
        assert part is not None
        options = self.experiment.systems[spec.name]
        dictionary = dictionary_spec(part, options, spec.name, subject.config, self.experiment)
        spec = replace(spec, subject=subject, dictionary=dictionary)
        return spec if isinstance(dictionary.config, Pretrained) else self._dictionaries(spec, dictionary)

    def subject(self, spec: SubjectSpec) -> SubjectSpec:
        if spec.name not in self.subjects:
            teacher = self.subject(spec.teacher) if isinstance(spec.teacher, SubjectSpec) else spec.teacher
            origin = self.subject(spec.origin) if spec.origin is not None else None
            spec = replace(spec, teacher=teacher, origin=origin)
            self.subjects[spec.name] = self._subject(spec) if spec.trained_here else spec
        return self.subjects[spec.name]

    def _subject(self, spec: SubjectSpec) -> SubjectSpec:
        shapes = self.wanted.shapes.get(spec.name, ({},))
        shaped = [(_label(shape), replace(spec, settings={**spec.settings, **shape})) for shape in shapes]
        rows = [(label, SystemSpec(one.name, one, None)) for label, one in shaped]
        first, here = self._round("shape", rows, spec.name)
        rates = [(f"x {rate:g}", replace(here, subject=_at_rate(here.subject, rate))) for rate in self.wanted.rates]
        slowest = min(range(len(rates)), key=self.wanted.rates.__getitem__)
        second, here = self._round("learning rates", rates, spec.name, slowest)
        self._note(spec.name, [first] * (len(shapes) > 1) + [second])
        return here.subject

    def _dictionaries(self, spec: SystemSpec, dictionary: DictionarySpec) -> SystemSpec:
        rounds = []
        stated = "share" in {**self.experiment.systems[spec.name], **_settings(spec.name)}
        if dictionary.share is not None and not stated:
            shares = [
                (f"{share:.0%}", replace(spec, dictionary=replace(dictionary, share=share)))
                for share in self.wanted.dictionary_shares
            ]
            found, spec = self._round("the dictionaries' share", shares, spec.name)
            rounds.append(found)
        rates = []
        for rate in self.wanted.dictionary_rates:
            assert spec.dictionary is not None
            scaled = _dictionary_at_rate(spec.dictionary, rate)
            rates.append((f"x {rate:g}", replace(spec, dictionary=scaled)))
        if len(rates) > 1:
            slowest = min(range(len(rates)), key=self.wanted.dictionary_rates.__getitem__)
            found, spec = self._round("the dictionaries' learning rate", rates, spec.name, slowest)
            rounds.append(found)
        if rounds:
            self._note(spec.name, rounds)
        return spec

    def _round(
        self, what: str, candidates: list[tuple[str, SystemSpec]], row: str, slowest: int = 0
    ) -> tuple[Round, SystemSpec]:
        """Tries each, and gives the one that is taken: `slowest` where all diverge, which ends no comparison."""
        tried = []
        for label, spec in candidates:
            made = [self._trial(spec, f"{what} {label}", FIRST_SEED + i) for i in range(self.wanted.seeds)]
            outcomes = [self.outcome(one) for one in made]
            self.trials += made
            complete = tuple(outcome for outcome in outcomes if outcome is not None)
            tried.append(Tried(label, complete if len(complete) == len(made) else ()))
        found = chosen(what, tried, slowest)
        if tried[found.taken].outcomes and math.isinf(tried[found.taken].dev):
            log.warning("%s: every trial of its %s diverged; %s is taken", row, what, tried[found.taken].label)
        return found, candidates[found.taken][1]

    def _trial(self, spec: SystemSpec, label: str, seed: int) -> Trial:
        subject = _on_cross_entropy(spec.subject)
        alone = replace(spec, subject=replace(subject, origin=None))
        short = self._short(alone, spec.budget or 1.0)
        flops = budget_of(short, self.experiment).training_flops
        short = replace(short, subject=replace(short.subject, origin=spec.subject.origin))
        label = f"trial of {spec.name}, {label}, seed {seed}"
        trained = subject_stage.stages(short.subject, seed, self.experiment, self.numerics, self.corpus)
        if short.dictionary is None:
            return Trial(short, trained, None, trial.stage(trained, label), flops)
        learnt = dictionary_stage.stage(spec.name, short.dictionary, seed, self.numerics, self.corpus, trained.stage)
        stage = spliced_trial.stage(label, self.numerics, self.corpus, trained.stage, learnt)
        return Trial(short, trained, learnt, stage, flops)

    def _short(self, spec: SystemSpec, part: float) -> SystemSpec:
        """The row with a trial's share of what it gets."""
        amount, share = self.experiment.budget.amount, self.wanted.share
        dictionary = spec.dictionary
        if amount is not None and dictionary is not None and dictionary.on_top:
            alone = self._solved(replace(spec, dictionary=None), share * amount)
            spec = replace(spec, subject=alone.subject)
        elif amount is not None and self.unmatched[spec.name] is None:
            return self._solved(spec, share * part * amount)
        if amount is not None and spec.solved_alone:
            return self._solved(spec, share * part * amount)
        if dictionary is None or not dictionary.on_top:
            training = spec.subject.training
            fewer = training.model_copy(update={"tokens": max(1, round(share * training.tokens))})
            spec = replace(spec, subject=replace(spec.subject, training=fewer))
        if dictionary is None:
            return spec
        settings = dictionary.settings
        settings = replace(settings, train_tokens=max(settings.batch_tokens, round(share * settings.train_tokens)))
        return replace(spec, dictionary=replace(dictionary, settings=settings))

    def _solved(self, spec: SystemSpec, total: float) -> SystemSpec:
        return solve(spec, total, self.experiment, as_near_as_can_be=True)[0]

    def _note(self, row: str, rounds: list[Round]) -> None:
        own = {one.stage.key: one for one in self.trials if one.spec.name == row}
        made = {key: self.outcome(one) for key, one in own.items()}
        self.choices[row] = Choice(
            rounds=tuple(rounds),
            share=self.wanted.share,
            trials=len(own),
            planned_flops=sum(one.flops for one in own.values()),
            flops=sum(outcome.flops for outcome in made.values() if outcome is not None),
        )


def _on_cross_entropy(subject: SubjectSpec) -> SubjectSpec:
    """The subject as its trials train it: whatever its target, with no teacher."""
    changed = {"target": CrossEntropy(), "sparsity": None, "checkpoints": 0}
    return replace(subject, training=subject.training.model_copy(update=changed), teacher=None)


def _at_rate(subject: SubjectSpec, factor: float) -> SubjectSpec:
    return replace(subject, training=subject.training.scaled(factor))


def _dictionary_at_rate(spec: DictionarySpec, factor: float) -> DictionarySpec:
    config: Any = spec.config
    if factor == 1:
        return spec
    own = config.selecting().lr if isinstance(config, TranscoderConfig) else config.lr
    return replace(spec, config=replace(config, lr=own * factor))


def _label(shape: dict[str, Any]) -> str:
    return ",".join(f"{name}={value}" for name, value in shape.items()) or "as written"


def _settings(row: str) -> dict[str, Any]:
    part = RowName.of(row).dictionary
    return {} if part is None else part.settings


def _check(specs: list[SystemSpec], experiment: Experiment, search: SearchConfig) -> None:
    matched = experiment.budget.matched
    if search.shapes and matched not in ("training_flops", "tokens", "none"):
        raise BadInput(f"search.shapes: shapes are chosen at equal training_flops or tokens, not at equal {matched}")
    if matched == "training_flops" and experiment.budget.amount is None:
        raise BadInput("search: give budget.amount; what the dearest row asks for hangs on the shape that is chosen")
    subjects = {spec.subject.name: spec.subject for spec in specs if spec.dictionary is None}
    for row, shapes in search.shapes.items():
        if row not in subjects or not subjects[row].trained_here:
            raise BadInput(f"search.shapes: no trained subject row {row!r}; {nearest(row, subjects)}")
        for shape in shapes:
            for problem in _problems(row, subjects[row], shape, specs):
                raise BadInput(f"search.shapes.{row}: {_label(shape)}: {problem}")


def _problems(row: str, subject: SubjectSpec, shape: dict[str, Any], specs: list[SystemSpec]) -> Iterator[str]:
    """What is wrong with a candidate."""
    allowed = models.ARCHITECTURES[subject.architecture].config_class.settings()
    for key in shape:
        if key in RowName.of(row).subject.settings:
            yield f"{key} stands in the row's name"
        if key not in allowed:
            yield f"unknown key {key}; {nearest(key, allowed)}"
    if subject.origin is not None or any(s.subject.origin is not None and s.subject.origin.name == row for s in specs):
        yield "a row that is upcycled, or that others are upcycled from, keeps its shape"
    try:
        models.ARCHITECTURES[subject.architecture].config(**{**subject.settings, **shape})
    except ValueError as error:
        yield str(error)
