"""A corpus as `build` wrote it: memory-mapped, so that opening one costs nothing and two runs share its pages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from harness.base.errors import HarnessError
from harness.corpus import Document

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class DomainSize:
    """Of one domain in one split. `tokens` counts one end of text a document."""

    documents: int
    bytes: int
    tokens: int


@dataclass(frozen=True)
class CorpusInfo:
    """What there is. `content_hash`: SHA-256 over id, split and text of every document; `end_of_text`: its token id;
    `left_over`: tokens at the end of each split that fill no sequence; `repeats`: near-duplicates left out, by domain;
    `packages`: versions of what the text was read from."""

    kind: str
    content_hash: str
    domains: tuple[str, ...]
    vocab_size: int
    end_of_text: int
    sequence_length: int
    sequences: dict[str, int]
    left_over: dict[str, int]
    sizes: dict[str, dict[str, DomainSize]]  # split -> domain -> size
    repeats: dict[str, int]
    packages: dict[str, str]

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> CorpusInfo:
        stored = json.loads(path.read_text())
        stored["domains"] = tuple(stored["domains"])
        stored["sizes"] = {
            split: {domain: DomainSize(**size) for domain, size in sizes.items()}
            for split, sizes in stored["sizes"].items()
        }
        return cls(**stored)


@dataclass(frozen=True)
class Batch:
    """Some sequences. All `[sequences, length]` int64.

    `input_ids`; `document`: row of the documents table; `domain`: index into `CorpusInfo.domains`; `n_bytes`: UTF-8
    bytes that the token covers, 0 for end of text; `ply`: of a game, counted from 0 (see `packing.pack`), else −1.
    """

    input_ids: Tensor
    document: Tensor
    domain: Tensor
    n_bytes: Tensor
    ply: Tensor

    def to(self, device: torch.device | str) -> Batch:
        return Batch(*(getattr(self, field.name).to(device) for field in fields(self)))


class PackedSplit:
    """One split as arrays over its memory-mapped file. Iterating is in stored order, which mixes the domains."""

    def __init__(self, dataset: datasets.Dataset, length: int) -> None:
        self.length = length
        self._columns = {field.name: _chunks(dataset, field.name, length) for field in fields(Batch)}
        self._starts = np.cumsum([0, *(len(chunk) for chunk in self._columns["input_ids"])])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def input_ids(self, index: int) -> np.ndarray:
        """`[length]` int32, read-only."""
        if not 0 <= index < len(self):
            raise IndexError(f"sequence {index} of {len(self)}")
        chunk = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self._columns["input_ids"][chunk][index - self._starts[chunk]]

    def batch(self, indices: Tensor) -> Batch:
        """The sequences `indices` `[n]`, in that order."""
        rows = np.asarray(indices, dtype=np.int64)
        if rows.size and (rows.min() < 0 or rows.max() >= len(self)):
            raise IndexError(f"sequences {rows.min()} to {rows.max()} of {len(self)}")
        return Batch(*(torch.from_numpy(self._gather(field.name, rows)) for field in fields(Batch)))

    def column(self, name: str) -> np.ndarray:
        """A whole column, copied into memory. `[sequences, length]`"""
        return np.concatenate(self._columns[name])

    def _gather(self, name: str, rows: np.ndarray) -> np.ndarray:
        found = np.empty((len(rows), self.length), dtype=np.int64)
        chunk_of_row = np.searchsorted(self._starts, rows, side="right") - 1
        for chunk in np.unique(chunk_of_row):
            here = chunk_of_row == chunk
            found[here] = self._columns[name][chunk][rows[here] - self._starts[chunk]]
        return found


def _chunks(dataset: datasets.Dataset, name: str, length: int) -> list[np.ndarray]:
    """Views into the mapped file, one an Arrow record batch. Each `[sequences, length]`."""
    column: pa.ChunkedArray = dataset.data.column(name)
    return [chunk.flatten().to_numpy(zero_copy_only=True).reshape(-1, length) for chunk in column.chunks]


class DocumentTable:
    """The documents of all splits: train first, then dev, then eval. Row numbers are what `Batch.document` holds."""

    def __init__(self, dataset: datasets.Dataset) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Document:
        row = self._dataset[int(index)]
        return Document(row["id"], row["domain"], row["text"], row["source"], tuple(row["marks"]))

    def __iter__(self) -> Iterator[Document]:
        return (self[index] for index in range(len(self)))

    @cached_property
    def ids(self) -> list[str]:
        return self._dataset.data.column("id").to_pylist()

    @cached_property
    def split(self) -> list[str]:
        return self._dataset.data.column("split").to_pylist()

    @cached_property
    def n_bytes(self) -> np.ndarray:
        """`[documents]` int64"""
        return self._dataset.data.column("n_bytes").to_numpy()


@dataclass(frozen=True)
class Corpus:
    """Everything a system is trained and measured on."""

    info: CorpusInfo
    train: PackedSplit
    dev: PackedSplit
    eval: PackedSplit
    documents: DocumentTable
    folder: Path

    def tokenizer(self) -> PreTrainedTokenizerFast:
        from transformers import PreTrainedTokenizerFast

        return PreTrainedTokenizerFast.from_pretrained(self.folder / "tokenizer")


def load(folder: Path) -> Corpus:
    """A corpus from the folder that `build` wrote. Raises HarnessError where something of it is missing."""
    import datasets

    try:
        info = CorpusInfo.load(folder / "info.json")
        parts = {
            name: datasets.Dataset.load_from_disk(str(folder / name)) for name in ("train", "dev", "eval", "documents")
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise HarnessError(f"{folder} is no complete corpus ({str(error).splitlines()[0]}); build it again") from error
    train, dev, evaluation = (PackedSplit(parts[name], info.sequence_length) for name in ("train", "dev", "eval"))
    return Corpus(info, train, dev, evaluation, DocumentTable(parts["documents"]), folder)
