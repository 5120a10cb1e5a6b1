"""What each token of a corpus means, where that is known: named concepts, and the tokens on which each one holds.

A kind of corpus says what its labels are (`CorpusConfig.labeller`): the planted language its hidden state, chess the
board, any text its brackets, quotes and domain. Here they are lined up with the tokens, once a split.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from harness.corpus import Document
from harness.corpus.stored import PackedSplit

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Concept:
    """Something that is true of a token or not. `kind` groups concepts in tables; `parts` names the concepts that a
    conjunction or another pair is made of."""

    name: str
    kind: str
    parts: tuple[str, ...] = ()


class Labeller(Protocol):
    """Says what holds in a document. `concepts`: everything that may hold, names unique.

    `held(document, ends)`: which concepts hold at which token, as two arrays of one length: the token's place in `ends`
    and the concept's place in `concepts`, every pair once, in any order. Token i ends after `ends[i]` bytes of UTF-8
    (ascending, at least one; the end-of-text token is not among them), and what holds is the state *after* it has been
    read: what a model may know there, and what decides what follows.

    `from_beginning`: only who has read the document from its first byte can know what holds, as with a board. Where a
    sequence begins in the middle of such a document, nobody who reads that sequence can: see `Labels.known`.
    """

    @property
    def concepts(self) -> tuple[Concept, ...]: ...

    @property
    def from_beginning(self) -> bool: ...

    def held(self, document: Document, ends: Integers) -> tuple[Integers, Integers]: ...


@dataclass(frozen=True)
class Labels:
    """Tokens × concepts, sparse (CSR), over the first sequences of a split in stored order.

    indptr: `[tokens + 1]` int64. held: `[nnz]` int32, ascending within a token. End-of-text tokens have none.
    known: `[tokens]`, false where the labeller needs a document from its beginning and the token's document begins
    before its sequence does. Such a token has no concepts, which says nothing of it: it is not to be scored.
    """

    concepts: tuple[Concept, ...]
    indptr: Integers
    held: NDArray[np.int32]
    known: NDArray[np.bool_]

    @property
    def n_tokens(self) -> int:
        return len(self.indptr) - 1

    def save(self, path: Path) -> None:
        concepts = [asdict(concept) for concept in self.concepts]
        with path.open("wb") as file:  # given a name, numpy would add an ending to it
            np.savez(file, indptr=self.indptr, held=self.held, known=self.known, concepts=np.array(repr(concepts)))

    @classmethod
    def load(cls, path: Path) -> Labels:
        from ast import literal_eval

        with np.load(path) as stored:
            concepts = tuple(Concept(**concept) for concept in literal_eval(str(stored["concepts"])))
            return cls(concepts, stored["indptr"], stored["held"], stored["known"])


def label(
    labeller: Labeller, split: PackedSplit, document: Callable[[int], Document], sequences: int | None = None
) -> Labels:
    """Labels of the first `sequences` (default: all) of a split; `document(row)` reads the documents table."""
    total = len(split) if sequences is None else min(sequences, len(split))
    of_sequence = split.column("document")[:total]
    documents = of_sequence.reshape(-1)
    known = begun(of_sequence).reshape(-1) if labeller.from_beginning else np.ones(len(documents), bool)
    n_bytes = split.column("n_bytes")[:total].reshape(-1).astype(np.int64)
    counts = np.zeros(len(documents), np.int64)
    parts = [np.zeros(0, np.int32)]
    for row, start, stop in runs(documents):
        text = np.flatnonzero(n_bytes[start:stop]) + start  # all but the end-of-text token
        if not len(text):
            continue  # the document begins with the last token that is looked at
        tokens, concepts = labeller.held(document(row), np.cumsum(n_bytes[text]))
        told = known[text][tokens]
        tokens, concepts = tokens[told], concepts[told]
        order = np.lexsort((concepts, tokens))  # by document: all at once would take several times the memory
        parts.append(concepts[order].astype(np.int32))
        counts[text] = np.bincount(tokens, minlength=len(text))
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Labels(labeller.concepts, indptr, np.concatenate(parts), known)


def begun(documents: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Whether each token's document begins in the token's own sequence, from the documents of a split's first tokens.
    Both `[sequences, length]`"""
    cut = np.zeros(len(documents), bool)  # the sequence begins in the middle of a document
    cut[1:] = documents[1:, 0] == documents[:-1, -1]
    return ~cut[:, None] | (documents != documents[:, :1])


def runs(documents: NDArray[np.integer]) -> Iterable[tuple[int, int, int]]:
    """(document, first token, one past the last) of every run of equal documents. A split begins with a document's
    beginning, and a document's tokens lie together, so a run starts at the document's first byte."""
    edges = np.flatnonzero(np.diff(documents)) + 1
    starts = np.concatenate([[0], edges]) if len(documents) else np.zeros(0, np.int64)
    stops = np.concatenate([edges, [len(documents)]]) if len(documents) else np.zeros(0, np.int64)
    for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
        yield int(documents[start]), start, stop
