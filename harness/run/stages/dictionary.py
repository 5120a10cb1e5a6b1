"""The stage `dictionary`: the dictionaries of rows that share a subject, trained in one pass of it, or imported."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.base.files import digest
from harness.base.progress import stage_progress
from harness.corpus.stored import Corpus  # at run time too: how it is read is part of the key
from harness.run.numerics import Numerics
from harness.store.stages import Stage
from harness.systems.system import Site
from harness.training.dictionaries import Job, import_dictionaries, load_dictionaries, train_dictionaries
from kernels.codes import ReadWrite
from saes.pretrained import Pretrained

if TYPE_CHECKING:
    from harness.experiment.dictionary_rows import DictionarySpec
    from models.subject import Subject


def stage(name: str, spec: DictionarySpec, seed: int, numerics: Numerics, corpus: Stage, subject: Stage) -> Stage:
    """Keyed by kind, configuration, sites, training, seed, numerics, and the subject. `name`: the row's."""
    return Stage(
        kind="dictionary",
        label=f"{name}, seed {seed}",
        config={
            "kind": spec.kind,
            "config": dataclasses.asdict(spec.config),
            "sites": [str(site) for site in spec.sites],
            "settings": dataclasses.asdict(spec.settings),
            "seed": seed,
            **numerics.as_config(),
        },
        upstream=(corpus.key, subject.key),
        modules=(__name__, *spec.config.modules()),
    )


@dataclass(frozen=True)
class WantedDictionaries:
    """The dictionaries of one row, and the folder that they go to."""

    spec: DictionarySpec
    folder: Path


def learnt_together(one: DictionarySpec, other: DictionarySpec) -> bool:
    """Whether one pass of a subject can train both: neither is imported, and they are trained alike."""
    return not any(isinstance(spec.config, Pretrained) for spec in (one, other)) and one.settings == other.settings


def produce(wanted: Mapping[str, WantedDictionaries], model: Subject, corpus: Corpus, seed: int, label: str) -> None:
    """Leaves every row's dictionaries in its folder. `wanted` by stage key: rows that are `learnt_together`, or one.

    Raises what `train_dictionaries` and `import_dictionaries` raise.
    """
    jobs: dict[str, Job] = {}
    for key, row in wanted.items():
        if isinstance(row.spec.config, Pretrained):
            import_dictionaries(row.spec.config, row.spec.sites, row.folder, model, corpus.dev)
        else:
            jobs[key] = Job(row.spec.config, row.spec.sites, row.folder)
    if jobs:
        settings = dataclasses.replace(next(iter(wanted.values())).spec.settings, seed=seed)
        # One folder of checkpoints for the pass, named by who takes part: another set is another pass.
        scratch = wanted[min(wanted)].folder / "checkpoint" / digest(sorted(wanted))[:16]
        with stage_progress(label) as report:
            train_dictionaries(jobs, model, corpus.train, corpus.dev, settings, scratch=scratch, report=report)


def read(folder: Path, spec: DictionarySpec, device: str) -> dict[Site, ReadWrite]:
    return dict(load_dictionaries(folder, spec.sites, device))
