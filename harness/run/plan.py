"""From an experiment to the stages that compute it: what determines what. Nothing runs here."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import models
from harness import metrics
from harness.base.errors import BadInput
from harness.base.settings import Strict, validated
from harness.corpus.readers import READERS, contents_digest, source_packages
from harness.experiment.budget import Matching, matched
from harness.experiment.rows import SubjectSpec, SystemSpec, system_specs
from harness.experiment.schema import Experiment
from harness.store.source import version_of
from harness.store.stages import Stage
from harness.training import teachers
from harness.training.trials import trial_config
from kernels.registry import nearest

REFERENCES = ("unigram", "bigram", "kneser_ney")


@dataclass(frozen=True)
class Numerics:
    """What the last digits of a result depend on besides the code."""

    device: str
    dtype: str
    threads: int

    def as_config(self) -> dict[str, Any]:
        kernels = os.environ.get("HARNESS_KERNELS", "")
        return {**dataclasses.asdict(self), "kernels": kernels}


@dataclass(frozen=True)
class SubjectStages:
    """The stage that trains a subject with one seed, and those that it needs: its teacher, its learning-rate trials (by
    the factor that scales the rates), and by seed the dense subject that it starts from (its trials have the first
    seed)."""

    spec: SubjectSpec
    seed: int
    stage: Stage
    trials: dict[float, Stage]
    teacher: SubjectStages | Path | None
    origins: dict[int, SubjectStages] = dataclasses.field(default_factory=dict)

    def before(self) -> Iterator[Stage]:
        for origin in self.origins.values():
            yield from origin.before()
            yield origin.stage
        if isinstance(self.teacher, SubjectStages):
            yield from self.teacher.before()
            yield self.teacher.stage
        yield from self.trials.values()


@dataclass(frozen=True)
class SystemRun:
    """One system with one seed, and its stages."""

    spec: SystemSpec
    seed: int
    trained: SubjectStages
    dictionary: Stage | None
    codes: Stage
    metrics: dict[str, Stage]

    @property
    def subject(self) -> Stage:
        return self.trained.stage

    def stages(self) -> Iterator[Stage]:
        """Those of this row; what its subject needed before is `trained.before()`."""
        yield self.subject
        if self.dictionary:
            yield self.dictionary
        yield self.codes
        yield from self.metrics.values()


@dataclass(frozen=True)
class Plan:
    experiment: Experiment
    numerics: Numerics
    corpus: Stage
    references: dict[str, Stage]
    runs: tuple[SystemRun, ...]
    metric_options: dict[str, Strict]
    matching: Matching

    def stages(self) -> list[Stage]:
        """Every stage once, in the order in which they can run."""
        everything = [self.corpus, *self.references.values()]
        for run in self.runs:
            everything += [*run.trained.before(), *run.stages()]
        return list({stage.key: stage for stage in everything}.values())


def make_plan(experiment: Experiment, numerics: Numerics) -> Plan:
    """Checks everything that can be checked before anything runs. Raises BadInput."""
    matching = matched(experiment, system_specs(experiment))
    options = _metric_options(experiment)
    for name in experiment.references:
        if name not in REFERENCES:
            raise BadInput(f"references: no reference {name!r}; {nearest(name, list(REFERENCES))}")
    corpus_config = experiment.corpus.model_dump(mode="json")
    corpus = Stage(
        kind="corpus",
        label=f"corpus {experiment.corpus.kind}",
        config={
            "corpus": corpus_config,
            "contents": contents_digest(experiment.corpus),
            "packages": {name: version_of(name) for name in source_packages(experiment.corpus)},
        },
        modules=("harness.corpus.build", READERS[experiment.corpus.kind]),
    )
    references = {
        name: Stage(
            kind="reference",
            label=f"reference {name}",
            config={"reference": name, "sequences": experiment.evaluation.sequences, **_resamples(experiment)},
            upstream=(corpus.key,),
            modules=("harness.corpus.references",),
        )
        for name in experiment.references
    }
    runs = tuple(
        _system_run(spec, seed, experiment, numerics, corpus, options)
        for spec in matching.specs
        for seed in experiment.seeds
    )
    return Plan(experiment, numerics, corpus, references, runs, options, matching)


def _system_run(
    spec: SystemSpec,
    seed: int,
    experiment: Experiment,
    numerics: Numerics,
    corpus: Stage,
    options: dict[str, Strict],
) -> SystemRun:
    evaluation = experiment.evaluation
    trained = subject_stages(spec.subject, seed, experiment, numerics, corpus)
    subject = trained.stage
    dictionary = None
    if spec.dictionary is not None:
        dictionary = Stage(
            kind="dictionary",
            label=f"{spec.name}, seed {seed}",
            config={
                "kind": spec.dictionary.kind,
                "config": dataclasses.asdict(spec.dictionary.config),
                "sites": [str(site) for site in spec.dictionary.sites],
                "settings": dataclasses.asdict(spec.dictionary.settings),
                "seed": seed,
                **numerics.as_config(),
            },
            upstream=(corpus.key, subject.key),
            modules=("harness.run.dictionaries", *spec.dictionary.modules),
        )
    upstream = (corpus.key, subject.key, *([dictionary.key] if dictionary else []))
    label = f"of {spec.name}, seed {seed}"
    codes = Stage(
        kind="codes",
        label=f"codes {label}",
        config={
            "sequences": evaluation.codes_sequences,
            "batch_sequences": evaluation.batch_sequences,
            **numerics.as_config(),
        },
        upstream=upstream,
        modules=("harness.run.measuring",),
    )
    of_metric = {
        name: Stage(
            kind="metric",
            label=f"{name} {label}",
            config={
                "metric": name,
                "version": metrics.module_of(name).VERSION,
                "options": chosen.model_dump(mode="json"),
                "sequences": evaluation.sequences,
                "batch_sequences": evaluation.batch_sequences,
                **_resamples(experiment),
                **numerics.as_config(),
            },
            upstream=(*upstream, codes.key),
            modules=("harness.run.measuring", metrics.names()[name]),
        )
        for name, chosen in options.items()
    }
    return SystemRun(spec, seed, trained, dictionary, codes, of_metric)


def subject_stages(
    spec: SubjectSpec, seed: int, experiment: Experiment, numerics: Numerics, corpus: Stage
) -> SubjectStages:
    config = models.ARCHITECTURES[spec.architecture].config(**spec.settings)
    determined = {
        "architecture": spec.architecture,
        "settings": {name: getattr(config, name) for name in type(config).settings()},
        **numerics.as_config(),
    }
    modules = ("harness.run.subjects", spec.module)
    if spec.untrained:
        untrained = {**determined, "training": {"tokens": 0}, "seed": seed}
        stage = Stage("subject", f"subject {spec.name}, seed {seed}", untrained, (corpus.key,), modules)
        return SubjectStages(spec, seed, stage, {}, None)
    teacher: SubjectStages | Path | None = None
    upstream, chosen_from = [corpus.key], {}
    if isinstance(spec.teacher, SubjectSpec):
        teacher = subject_stages(spec.teacher, seed, experiment, numerics, corpus)
        upstream.append(teacher.stage.key)
    elif spec.teacher is not None:
        teacher = spec.teacher
        upstream.append(teachers.digest_of(teacher))
    origins: dict[int, SubjectStages] = {}
    if spec.origin is not None:
        modules = (*modules, "harness.training.upcycling")
        first_too = experiment.seeds[:1] if experiment.learning_rate_trials is not None else ()
        for each in (seed, *first_too):
            origins[each] = subject_stages(spec.origin, each, experiment, numerics, corpus)
        upstream.append(origins[seed].stage.key)
        determined["upcycled_from"] = spec.origin.architecture
    trials = {}
    if experiment.learning_rate_trials is not None:
        # One choice for all seeds, made with the first.
        first = experiment.seeds[0]
        for scale in experiment.learning_rate_trials.scales:
            trial = trial_config(spec.training, scale, experiment.learning_rate_trials)
            trials[scale] = Stage(
                kind="trial",
                label=f"trial of {spec.name}, learning rates x {scale:g}",
                config={**determined, "training": trial.model_dump(mode="json"), "seed": first},
                upstream=(corpus.key, *([origins[first].stage.key] if origins else [])),
                modules=modules,
            )
        upstream += [stage.key for stage in trials.values()]
        chosen_from = {"learning_rate_trials": list(trials)}
    stage = Stage(
        kind="subject",
        label=f"subject {spec.name}, seed {seed}",
        config={**determined, "training": spec.training.model_dump(mode="json"), "seed": seed, **chosen_from},
        upstream=tuple(upstream),
        modules=modules,
    )
    return SubjectStages(spec, seed, stage, trials, teacher, origins)


def _metric_options(experiment: Experiment) -> dict[str, Strict]:
    known = metrics.names()
    for name in experiment.metrics:
        if name not in known:
            raise BadInput(f"metrics: no metric {name!r}; {nearest(name, list(known))}")
    return {
        name: validated(metrics.module_of(name).Options, raw, where=f"metrics.{name}")
        for name, raw in experiment.metrics.items()
    }


def _resamples(experiment: Experiment) -> dict[str, int]:
    return {"resamples": experiment.evaluation.resamples}
