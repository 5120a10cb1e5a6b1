"""One call from a configuration to a folder."""

from __future__ import annotations

import hashlib
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from harness.base.errors import BadInput
from harness.corpus import SPLITS, Document, Progress, quiet
from harness.corpus.config import CorpusConfig, packages_of
from harness.corpus.packing import Packed, pack, save_documents, save_split
from harness.corpus.select import Selection, select
from harness.corpus.stored import Corpus, CorpusInfo, DomainSize, load
from harness.corpus.tokenizer import (
    Reader,
    as_pretrained,
    own_reader,
    pretrained_reader,
    read_pretrained,
    train_tokenizer,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["Corpus", "CorpusInfo", "build", "load"]

_PARTS = ("tokenizer", *SPLITS, "documents", "info.json")


def build(config: CorpusConfig, folder: Path, progress: Progress = quiet) -> CorpusInfo:
    """Reads, splits, tokenises and packs a corpus into `folder`, which gets `tokenizer/` (transformers), `train/`,
    `dev/`, `eval/` and `documents/` (datasets) and `info.json`. The same bytes for the same configuration and texts.

    Everything is read and checked before anything is written, and a failure while writing takes away what was
    written. Raises BadInput for what a person can mend.
    """
    theirs = None if config.tokenizer is None else read_pretrained(config.tokenizer)
    selection = select(config, config.sources(), progress)
    tokenizer, reader = (theirs, pretrained_reader(theirs)) if theirs is not None else _trained(config, selection)
    packed: dict[str, Packed] = {}
    everything: list[Document] = []
    for split in SPLITS:
        documents = selection.documents[split]
        packed[split] = pack(documents, len(everything), selection.domains, reader, config.sequence_length, progress)
        if not len(packed[split].columns["input_ids"]):
            raise BadInput(
                f"the {split} split has {packed[split].left_over:,} tokens, less than one sequence of "
                f"{config.sequence_length}; raise bytes_per_domain or lower sequence_length"
            )
        everything += documents
    content = content_hash(selection)
    info = CorpusInfo(
        kind=config.kind,
        content_hash=content,
        domains=selection.domains,
        vocab_size=len(tokenizer),
        end_of_text=reader.begin,
        sequence_length=config.sequence_length,
        sequences={split: len(packed[split].columns["input_ids"]) for split in SPLITS},
        left_over={split: packed[split].left_over for split in SPLITS},
        sizes={split: _sizes(selection, split, packed[split].tokens) for split in SPLITS},
        repeats=selection.repeats,
        packages={name: _version(name) for name in packages_of(config)},
    )
    folder.mkdir(parents=True, exist_ok=True)
    try:
        tokenizer.save_pretrained(folder / "tokenizer")
        for split in SPLITS:
            save_split(packed[split], folder / split, content)
        names = [split for split in SPLITS for _ in selection.documents[split]]
        tokens = [count for split in SPLITS for count in packed[split].tokens]
        save_documents(everything, names, tokens, folder / "documents", content)
        info.save(folder / "info.json")  # last: a folder with it is whole
    except BaseException:
        for part in _PARTS:
            shutil.rmtree(folder / part, ignore_errors=True)
            (folder / part).unlink(missing_ok=True)
        raise
    return info


def _trained(config: CorpusConfig, selection: Selection) -> tuple[PreTrainedTokenizerFast, Reader]:
    own = train_tokenizer((document.text for document in selection.documents["train"]), config.vocab_size)
    return as_pretrained(own), own_reader(own)


def content_hash(selection: Selection) -> str:
    """SHA-256 over split, id and text of every document, in stored order."""
    found = hashlib.sha256()
    for split in SPLITS:
        for document in selection.documents[split]:
            for part in (split, document.id, document.text):
                data = part.encode()
                found.update(len(data).to_bytes(8, "big") + data)  # so that no two lists of parts look the same
    return found.hexdigest()


def _sizes(selection: Selection, split: str, tokens: list[int]) -> dict[str, DomainSize]:
    found = {}
    for domain in selection.domains:
        rows = [i for i, document in enumerate(selection.documents[split]) if document.domain == domain]
        n_bytes = sum(len(selection.documents[split][i].text.encode()) for i in rows)
        found[domain] = DomainSize(len(rows), n_bytes, sum(tokens[i] for i in rows))
    return found


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"
