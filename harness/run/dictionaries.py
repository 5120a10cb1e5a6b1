"""The stage `dictionary`: the dictionaries of rows that share a subject, trained in one pass of it, or imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from transformers import PreTrainedModel

from harness.base.files import digest
from harness.base.progress import Report
from harness.corpus import Corpus
from harness.training.dictionaries import Job, import_dictionaries, train_dictionaries
from saes.pretrained import Pretrained

if TYPE_CHECKING:
    from harness.experiment.rows import DictionarySpec


@dataclass(frozen=True)
class Wanted:
    """The dictionaries of one row, and the folder that they go to."""

    spec: DictionarySpec
    folder: Path


def learnt_together(one: DictionarySpec, other: DictionarySpec) -> bool:
    """Whether one pass of a subject can train both: neither is imported, and they are trained alike."""
    return not any(isinstance(spec.config, Pretrained) for spec in (one, other)) and one.settings == other.settings


def produce(wanted: Mapping[str, Wanted], model: PreTrainedModel, corpus: Corpus, seed: int, report: Report) -> None:
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
        settings = replace(next(iter(wanted.values())).spec.settings, seed=seed)
        # One folder of checkpoints for the pass, named by who takes part: another set is another pass.
        scratch = wanted[min(wanted)].folder / "checkpoint" / digest(sorted(wanted))[:16]
        train_dictionaries(jobs, model, corpus.train, corpus.dev, settings, scratch=scratch, report=report)
