"""The stage `labels`: which concepts hold on which tokens of the dev and evaluation split."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from harness.base.progress import stage_progress
from harness.corpus.config import LABELLERS, CorpusConfig
from harness.corpus.labels import Labels, label
from harness.corpus.stored import Corpus
from harness.store.stages import Stage

if TYPE_CHECKING:
    from harness.experiment.schema import EvaluationConfig

SPLITS = ("dev", "eval")


def stage(config: CorpusConfig, evaluation: EvaluationConfig, corpus: Stage) -> Stage:
    """Keyed by the corpus, how its kind labels it, and how much is labelled: as much of each split as has codes."""
    return Stage(
        kind="labels",
        label=f"labels of corpus {config.kind}",
        config={"sequences": evaluation.codes_sequences},
        upstream=(corpus.key,),
        modules=(__name__, LABELLERS.modules().get(config.kind, "harness.corpus.text_labels")),
    )


def produce(config: CorpusConfig, corpus: Corpus, evaluation: EvaluationConfig, name: str, work: Path) -> None:
    labeller = config.labeller(corpus.info.domains)
    with stage_progress(name) as report:
        for done, split in enumerate(SPLITS):
            report(done, len(SPLITS), "splits")
            packed = corpus.dev if split == "dev" else corpus.eval
            found = label(labeller, packed, corpus.documents.__getitem__, evaluation.codes_sequences)
            found.save(work / f"{split}.npz")


def read(folder: Path, split: str) -> Labels:
    return Labels.load(folder / f"{split}.npz")
