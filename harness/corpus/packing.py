"""Documents become sequences of equal length, with what every token belongs to beside it.

All documents of a split, each begun by the end-of-text token, make one stream; the stream is cut every `length`
tokens. What is left over at its end, shorter than one sequence, is dropped in every split, so there is no padding
and no mask anywhere; `Packed.left_over` counts it. Documents cross the cuts, and a sequence holds several of them:
nothing keeps attention from an earlier document of the same sequence. In another model's tokens the token that begins
a document begins every sequence too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.corpus import Document, Progress

if TYPE_CHECKING:
    import pyarrow as pa

    from harness.corpus.tokenizer import Reader

COLUMNS = {
    "input_ids": np.int32,
    "document": np.int32,
    "domain": np.int8,
    "n_bytes": np.uint16,
    "ply": np.int16,
}
_BATCH = 256  # documents tokenised between two calls of progress


@dataclass(frozen=True)
class Packed:
    """One split. `columns[name]`: `[sequences, length]`; `tokens[i]`: tokens of document i with its end of text."""

    columns: dict[str, np.ndarray]
    tokens: list[int]
    left_over: int


def pack(
    documents: Sequence[Document],
    first: int,
    domains: Sequence[str],
    reader: Reader,
    length: int,
    progress: Progress,
) -> Packed:
    """`documents` as sequences; the i-th is number `first + i` of the documents table.

    A token of a game belongs to the ply of its *last* character: the last one whose SAN has begun there (−1 before
    the first, and outside chess). A token that covers the space before a SAN thereby belongs to that SAN, and a move
    number to the half-move before it.
    """
    parts: dict[str, list[np.ndarray]] = {name: [] for name in COLUMNS}
    tokens = []
    for start in range(0, len(documents), _BATCH):
        batch = documents[start : start + _BATCH]
        texts = [document.text for document in batch]
        for offset, encoded in enumerate(reader.encoded(texts)):
            document = batch[offset]
            ids = np.array([reader.begin, *encoded.ids], dtype=np.int32)
            covered = np.concatenate([np.zeros(1, np.uint16), reader.covers(encoded, document.text)])
            row = {
                "input_ids": ids,
                "document": np.full(len(ids), first + start + offset),
                "domain": np.full(len(ids), domains.index(document.domain)),
                "n_bytes": covered,
                "ply": _plies(document, covered),
            }
            for name, kind in COLUMNS.items():
                parts[name].append(row[name].astype(kind))
            tokens.append(len(ids))
        progress(start + len(batch), len(documents), "documents packed")
    cut = length - reader.everywhere
    whole = sum(tokens) // cut * cut
    columns = {name: np.concatenate(parts[name])[:whole].reshape(-1, cut) for name in COLUMNS}
    if reader.everywhere:
        columns = {name: _begun(name, column, reader.begin) for name, column in columns.items()}
    return Packed(columns, tokens, sum(tokens) - whole)


def _begun(name: str, column: np.ndarray, begin: int) -> np.ndarray:
    """Sequences with the begin token in front, which covers nothing and belongs to what follows."""
    first = {"input_ids": np.full_like(column[:, :1], begin), "n_bytes": np.zeros_like(column[:, :1])}
    return np.concatenate([first.get(name, column[:, :1]), column], axis=1)


def _plies(document: Document, covered: np.ndarray) -> np.ndarray:
    if not document.marks:
        return np.full(len(covered), -1)
    last = np.cumsum(covered, dtype=np.int64) - 1  # movetext is ASCII: bytes are characters
    return np.searchsorted(np.array(document.marks), last, side="right") - 1


def save_split(packed: Packed, folder: Path, fingerprint: str) -> None:
    """Through `datasets`, so that anything that reads its folders reads this one."""
    import pyarrow as pa

    arrays = {}
    for name, column in packed.columns.items():
        arrays[name] = pa.FixedSizeListArray.from_arrays(pa.array(column.reshape(-1)), column.shape[1])
    _save(pa.table(arrays), folder, fingerprint)


def save_documents(
    documents: Sequence[Document], splits: Sequence[str], tokens: Sequence[int], folder: Path, fingerprint: str
) -> None:
    """The documents table: text and origin of every document, in the order that `document` counts in."""
    import pyarrow as pa

    columns = {
        "id": [document.id for document in documents],
        "domain": [document.domain for document in documents],
        "source": [document.source for document in documents],
        "split": list(splits),
        "n_bytes": pa.array([len(document.text.encode()) for document in documents], pa.int64()),
        "n_tokens": pa.array(list(tokens), pa.int64()),
        "marks": pa.array([list(document.marks) for document in documents], pa.list_(pa.int32())),
        "text": pa.array([document.text for document in documents], pa.large_string()),
    }
    _save(pa.table(columns), folder, fingerprint)


def _save(table: pa.Table, folder: Path, fingerprint: str) -> None:
    import datasets
    from datasets.table import InMemoryTable

    # Given, because datasets would make one from a pickle of the whole table, which its version decides.
    dataset = datasets.Dataset(InMemoryTable(table), fingerprint=f"{fingerprint[:16]}-{folder.name}")
    showed = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        dataset.save_to_disk(folder, num_shards=1)
    finally:
        if showed:
            datasets.enable_progress_bars()
