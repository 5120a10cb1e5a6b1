"""Text with its domain and its origin: what a subject is trained on and everything is measured on.

A *reader* (one file here per kind of corpus) says which domains there are and where each one's texts come from.
`select.py` takes documents from them until every domain and split has its bytes, `tokenizer.py` and `packing.py`
turn them into memory-mapped sequences, `build.py` does all of it in one call, `stored.py` reads what it wrote. To add
a kind: one file with a `CorpusConfig` of its own and a call of `register`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from kernels.registry import nearest

if TYPE_CHECKING:
    from harness.corpus.stored import Batch, Corpus, CorpusInfo, PackedSplit

__all__ = ["Batch", "Corpus", "CorpusInfo", "Document", "PackedSplit", "Progress", "Source", "Sources"]

SPLITS = ("train", "dev", "eval")
END_OF_TEXT = "<|endoftext|>"


@dataclass(frozen=True)
class Document:
    """One piece of text.

    `id` is stable: the same text from the same place has the same id on every machine. `source` is what the split
    hashes on (the file from which a docstring *and* its code come), so that whatever shares an origin lies on one
    side. `marks` (chess only): character offset at which each half-move's SAN starts.
    """

    id: str
    domain: str
    text: str
    source: str
    marks: tuple[int, ...] = ()


@dataclass(frozen=True)
class Source:
    """Where documents come from, read only if its split still needs text."""

    name: str
    read: Callable[[], list[Document]]


Sources = Iterable[Source]  # may be endless (generated games), and is walked once per split


class Progress(Protocol):
    """`progress(done, total, unit)`; `unit` names the stage, `total` may be overshot by the last item."""

    def __call__(self, done: int, total: int, unit: str) -> None: ...


def quiet(done: int, total: int, unit: str) -> None:
    """The progress of whoever does not look."""


def digest(*parts: object) -> int:
    """64 bits of SHA-256 of the parts: the only source of order and chance in reading a corpus."""
    joined = "\x1f".join(str(part) for part in parts).encode()
    return int.from_bytes(hashlib.sha256(joined).digest()[:8], "big")


def in_hash_order(sources: Iterable[Source], seed: int) -> list[Source]:
    """So that stopping early takes a sample of the whole and not the head of an alphabet."""
    return sorted(sources, key=lambda source: (digest(seed, source.name), source.name))


def missing_domain(wanted: str, available: Iterable[str]) -> str:
    """The one line for a domain that is not there."""
    return f"the corpus has no domain {wanted!r}; {nearest(wanted, available)}"


def __getattr__(name: str) -> Any:
    """The stored corpus, by need: it imports torch, and whoever checks a configuration should not wait for that."""
    if name in ("Batch", "Corpus", "CorpusInfo", "PackedSplit"):
        return getattr(import_module("harness.corpus.stored"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
