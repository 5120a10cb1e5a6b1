"""What was read of a dataset, kept in the store with the position of the read.

    hub/<key>/documents.jsonl   the records that were taken, a line each
    hub/<key>/position.json     how far the read is: written after every block, and after the lines that it counts

The key covers what decides the text: commit or bytes, columns, demand. A read that was killed, or whose network went
away, goes on after the last block and takes what it would have taken. One that is finished is never read again, so
another tokenizer or sequence length needs no network. `harness clean` frees it.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from harness.base.files import digest as digest_of
from harness.base.files import locked, store_root, write_atomically
from harness.corpus import Document, Source, digest
from harness.corpus.hub.gathering import Demand, Gathering
from harness.corpus.hub.network import ask, patiently
from harness.corpus.hub.recipes import Origin
from harness.corpus.hub.stream import Stream

log = logging.getLogger(__name__)

_FORM = 1  # of the files here; raised when they change
_TOLD_EVERY = 30.0  # seconds


@dataclass
class Position:
    """After a block. `lines`: bytes of documents.jsonl that belong to it; `begun`: rows of a document whose end was
    not seen; `stream`: what `datasets` needs to go on."""

    rows: int = 0
    records: int = 0
    empty: int = 0
    repeats: int = 0
    lines: int = 0
    begun: list[str] = field(default_factory=list)
    domains: list[str] = field(default_factory=list)
    seen_domains: dict[str, int] = field(default_factory=dict)
    stream: dict[str, Any] | None = None
    finished: bool = False
    datasets: str = field(default_factory=lambda: version("datasets"))


def read(origin: Origin, commit: str, demand: Demand) -> dict[str, list[Source]]:
    """Domain -> its texts, from the disk where an earlier call has read them. Raises BadInput for less than was asked
    for, HarnessError where the network stays away."""
    told = {"form": _FORM, "origin": origin.model_dump(mode="json"), "commit": commit, "demand": demand.as_json()}
    key = digest_of(told)[:20]
    folder = store_root() / "hub" / key
    for each in (folder, store_root() / "locks"):
        each.mkdir(parents=True, exist_ok=True)
    waiting = f"waiting: another run is reading {origin.place()}"
    with locked(store_root() / "locks" / f"hub-{key}", waiting=waiting):
        return Spool(folder, origin, commit, demand).read()


class Spool:
    """One read of one dataset. Its caller holds the lock."""

    def __init__(self, folder: Path, origin: Origin, commit: str, demand: Demand) -> None:
        self._origin, self._commit, self._demand = origin, commit, demand
        self._lines, self._place = folder / "documents.jsonl", folder / "position.json"
        self._gathering = Gathering(demand, origin.place(), origin.domain_column)
        self._begins = None if origin.begins is None else re.compile(origin.begins)
        self._at = self._found()

    def read(self) -> dict[str, list[Source]]:
        if not self._at.finished:
            self._read_on()
        self._gathering.check()
        found: dict[str, list[Source]] = {domain: [] for domain in self._gathering.domains}
        for documents in self._kept():
            found[documents[0].domain].append(Source(documents[0].source, documents.copy))
        return found

    def _read_on(self) -> None:
        stream: Stream | None = None
        demand, gathering, told = self._demand, self._gathering, time.monotonic()
        dataset = self._origin.dataset
        if dataset is not None:
            ask(dataset, self._commit)  # no network: said at once, and not after huggingface_hub's own tries

        def block() -> tuple[Stream, list[tuple[str, str | None]]]:
            nonlocal stream
            opened, stream = stream, None  # one that failed in the middle of a block is opened anew
            opened = opened or Stream(self._origin, self._commit, demand.seed, self._at.stream)
            return opened, opened.take(demand.shuffle_buffer)

        while not (gathering.enough() or gathering.records >= demand.max_records or self._at.finished):
            stream, rows = patiently(block, dataset, self._commit, self._how_far)
            self._keep(rows, stream, ended=len(rows) < demand.shuffle_buffer)
            if time.monotonic() - told > _TOLD_EVERY:
                told = time.monotonic()
                log.info(
                    "%s: %s records read; wanted: %s",
                    self._origin.place(),
                    f"{self._at.records:,}",
                    gathering.lacking(),
                )
        self._at.finished = True
        self._save()
        log.info(
            "%s at %s: %d records read, %d taken, %d near-duplicates and %d empty ones left out",
            self._origin.place(),
            self._commit[:12],
            self._at.records,
            gathering.sources.total(),
            self._at.repeats,
            self._at.empty,
        )

    def _keep(self, rows: list[tuple[str, str | None]], stream: Stream, ended: bool) -> None:
        """A block is mixed, searched, written, and only then counted."""
        at, gathering = self._at, self._gathering
        records = list(enumerate(self._documents(rows, ended), start=at.rows))
        records.sort(key=lambda each: digest("mixed", self._demand.seed, each[0]))
        taken = [documents for _, record in records if (documents := gathering.take(*record))]
        data = b"".join(json.dumps([asdict(d) for d in documents]).encode() + b"\n" for documents in taken)
        with self._lines.open("ab") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        at.rows += len(rows)
        at.lines += len(data)
        at.records, at.empty, at.repeats = gathering.records, gathering.empty, gathering.repeats
        at.domains, at.seen_domains = gathering.domains, dict(gathering.seen_domains)
        at.stream, at.finished = stream.position(), ended
        self._save()

    def _documents(self, rows: list[tuple[str, str | None]], ended: bool) -> list[tuple[str, str | None]]:
        """Rows that are lines, put together; the last document of a block waits for the next one."""
        if self._begins is None:
            return rows
        whole: list[tuple[str, str | None]] = []
        begun = self._at.begun
        for text, _ in rows:
            if begun and self._begins.search(text.rstrip("\r\n")):
                whole.append(("".join(begun), None))
                begun = []
            begun = [*begun, text] if text.endswith("\n") else [*begun, text + "\n"]
        if ended and begun:
            whole.append(("".join(begun), None))
            begun = []
        self._at.begun = begun
        return whole

    def _found(self) -> Position:
        """Where an earlier read was, with what it had taken; the beginning, with a word, where that cannot be used."""
        if not self._place.is_file():
            self._lines.unlink(missing_ok=True)
            return Position()
        try:
            at = Position(**json.loads(self._place.read_text()))
            if at.lines and self._lines.stat().st_size < at.lines:
                raise ValueError(f"{self._lines.name} is shorter than it says")
            if at.datasets != version("datasets") and not at.finished:
                raise ValueError(f"it is of datasets {at.datasets}, and this is {version('datasets')}")
            if self._lines.is_file():
                os.truncate(self._lines, at.lines)
            for documents in self._kept():
                self._gathering.recall(documents)
        except (OSError, ValueError, TypeError, KeyError, IndexError) as error:
            log.warning(
                "%s is read again from its beginning: %s cannot be used (%s)", self._origin.place(), self._place, error
            )
            self._lines.unlink(missing_ok=True)
            self._gathering = Gathering(self._demand, self._origin.place(), self._origin.domain_column)
            return Position()
        gathering = self._gathering
        gathering.records, gathering.empty, gathering.repeats = at.records, at.empty, at.repeats
        gathering.domains, gathering.seen_domains = at.domains, type(gathering.seen_domains)(at.seen_domains)
        if not at.finished:
            log.info("%s: goes on after %s records", self._origin.place(), f"{at.records:,}")
        return at

    def _kept(self) -> Iterator[list[Document]]:
        if self._lines.is_file():
            with self._lines.open("rb") as file:
                for line in file:
                    yield [Document(**{**each, "marks": ()}) for each in json.loads(line)]

    def _save(self) -> None:
        write_atomically(self._place, json.dumps(asdict(self._at)).encode())

    def _how_far(self) -> str:
        return f"{self._at.records:,} records are kept: the same command goes on from there"
