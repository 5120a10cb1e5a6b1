"""From an experiment to the stages that compute it: what determines what. Nothing runs here."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

import models
from harness import metrics
from harness.config import Experiment, nearest, validated
from harness.corpus import READERS, contents_digest, source_packages
from harness.errors import BadInput
from harness.stages import Stage
from harness.systems import SystemSpec, system_specs
from harness.training_config import Strict

REFERENCES = ("unigram", "bigram", "kneser_ney")


@dataclass(frozen=True)
class Numerics:
    """What the last digits of a result depend on besides the code."""

    device: str
    dtype: str
    threads: int

    def as_config(self) -> dict[str, Any]:
        kernels = os.environ.get("HARNESS_KERNELS", "")
        return {**dataclasses.asdict(self), "torch": torch.__version__.split("+")[0], "kernels": kernels}


@dataclass(frozen=True)
class SystemRun:
    """One system with one seed, and its stages."""

    spec: SystemSpec
    seed: int
    subject: Stage
    dictionary: Stage | None
    codes: Stage
    metrics: dict[str, Stage]

    def stages(self) -> Iterator[Stage]:
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

    def stages(self) -> list[Stage]:
        """Every stage once, in the order in which they can run."""
        everything = [self.corpus, *self.references.values(), *(stage for run in self.runs for stage in run.stages())]
        return list({stage.key: stage for stage in everything}.values())


def make_plan(experiment: Experiment, numerics: Numerics) -> Plan:
    """Checks everything that can be checked before anything runs. Raises BadInput."""
    specs = system_specs(experiment)
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
            "packages": _versions(source_packages(experiment.corpus)),
        },
        modules=("harness.corpus.build", READERS[experiment.corpus.kind]),
    )
    references = {
        name: Stage(
            kind="reference",
            label=f"reference {name}",
            config={"reference": name, "sequences": experiment.evaluation.sequences, **_resamples(experiment)},
            upstream=(corpus.key,),
            modules=("harness.references", "harness.metrics.loss"),
        )
        for name in experiment.references
    }
    runs = tuple(
        _system_run(spec, seed, experiment, numerics, corpus, options) for spec in specs for seed in experiment.seeds
    )
    return Plan(experiment, numerics, corpus, references, runs, options)


def _system_run(
    spec: SystemSpec,
    seed: int,
    experiment: Experiment,
    numerics: Numerics,
    corpus: Stage,
    options: dict[str, Strict],
) -> SystemRun:
    evaluation = experiment.evaluation
    config = models.architecture(spec.subject.architecture).config(**spec.subject.settings)
    settings = {name: getattr(config, name) for name in type(config).settings()}
    subject = Stage(
        kind="subject",
        label=f"subject {spec.subject.name}, seed {seed}",
        config={
            "architecture": spec.subject.architecture,
            "settings": settings,
            "training": spec.subject.training.model_dump(mode="json"),
            "seed": seed,
            **numerics.as_config(),
        },
        upstream=(corpus.key,),
        modules=("harness.training", spec.subject.module),
    )
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
            modules=("harness.dictionary_training", spec.dictionary.module),
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
        modules=("harness.evaluation", "harness.decomposition"),
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
            modules=(metrics.names()[name], "harness.evaluation"),
        )
        for name, chosen in options.items()
    }
    return SystemRun(spec, seed, subject, dictionary, codes, of_metric)


def _metric_options(experiment: Experiment) -> dict[str, Strict]:
    known = metrics.names()
    for name in experiment.metrics:
        if name not in known:
            raise BadInput(f"metrics: no metric {name!r}; {nearest(name, list(known))}")
    return {
        name: validated(import_module(known[name]).Options, raw, where=f"metrics.{name}")
        for name, raw in experiment.metrics.items()
    }


def _resamples(experiment: Experiment) -> dict[str, int]:
    return {"resamples": experiment.evaluation.resamples}


def _versions(packages: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found
