"""The stage `corpus`: text, split, tokenised and packed."""

from __future__ import annotations

from pathlib import Path

from harness.base import foreign
from harness.base.progress import stage_progress
from harness.corpus import Corpus
from harness.corpus.build import build, load
from harness.corpus.config import CORPORA, CorpusConfig, packages_of
from harness.store.source import version_of
from harness.store.stages import Stage


def stage(config: CorpusConfig) -> Stage:
    """Keyed by the configuration, what it reads (files by their bytes, packages by their versions) and the reader."""
    asked, label = config.model_dump(mode="json", exclude={"tokenizer"}), f"corpus {config.kind}"
    if config.tokenizer is not None:
        theirs = config.tokenizer
        asked["tokenizer"] = [foreign.tokenizer_digest(theirs.folder, theirs.gguf_file), theirs.begin]
        label = f"{label} in the tokens of {config.tokenizer.folder.name}"
    return Stage(
        kind="corpus",
        label=label,
        config={
            "corpus": asked,
            "contents": config.contents(),
            "packages": {name: version_of(name) for name in packages_of(config)},
        },
        modules=(__name__, CORPORA.modules()[config.kind]),
    )


def produce(config: CorpusConfig, label: str, work: Path) -> None:
    with stage_progress(label) as report:
        build(config, work, report)


def read(folder: Path) -> Corpus:
    return load(folder)
