"""A corpus from local files: one subfolder a domain, or one folder that is the only domain.

Read are UTF-8 text (`.txt`, `.md`, source code, anything not listed next), `.jsonl` and `.parquet` with a column
`text`; hidden files are passed over, links are followed. A text file is one source, so all its excerpts lie on one
side of the split; every record of a jsonl or parquet file is a source. Records are checked and kept in memory when the
corpus is opened, so that a bad line stops a run before it starts; text files are read when their turn comes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import Field

from harness.base.errors import BadInput
from harness.corpus import Document, Source, Sources, in_hash_order
from harness.corpus.config import CorpusConfig, register
from harness.corpus.excerpts import documents_of
from harness.corpus.folder import contents_digest, files_of

TEXT_COLUMN = "text"


class FilesCorpus(CorpusConfig):
    """Files of one's own."""

    kind: Literal["files"] = "files"
    path: Path = Field(description="the folder to read, or one file")

    def sources(self) -> dict[str, Sources]:
        """Domains in alphabetical order. Raises BadInput naming the file (and line) that cannot be read."""
        return _sources(self)

    def contents(self) -> str | None:
        return contents_digest(self.path)

    def where(self) -> Path | None:
        return self.path


def _sources(config: FilesCorpus) -> dict[str, Sources]:
    by_domain: dict[str, list[Source]] = {}
    whole = config.path.resolve().stem if config.path.is_file() else config.path.resolve().name
    for name, path in files_of(config.path).items():
        domain = name.split("/")[0] if "/" in name else whole
        if config.wants(domain):
            by_domain.setdefault(domain, []).extend(_sources_in(path, name, domain, config))
        else:
            by_domain.setdefault(domain, [])
    if not by_domain:
        raise BadInput(f"the corpus is empty: no file in {config.path}")
    return {domain: in_hash_order(by_domain[domain], config.seed) for domain in sorted(by_domain)}


def _sources_in(path: Path, name: str, domain: str, config: CorpusConfig) -> Iterator[Source]:
    if path.suffix == ".jsonl":
        records = _jsonl(path)
    elif path.suffix == ".parquet":
        records = _parquet(path)
    else:
        yield Source(name, partial(_text_file, path, name, domain, config))
        return
    for number, text in records:
        record = f"{name}:{number}"
        yield Source(record, partial(documents_of, record, domain, [text], config.max_document_bytes))


def _text_file(path: Path, name: str, domain: str, config: CorpusConfig) -> list[Document]:
    return documents_of(name, domain, [read_text(path)], config.max_document_bytes)


def _jsonl(path: Path) -> Iterator[tuple[int, str]]:
    # Not str.splitlines, which also breaks at characters that JSON allows inside a string.
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise BadInput(f"{path}:{number}: not JSON: {error.msg} at character {error.pos + 1}") from None
        except RecursionError:
            raise BadInput(f"{path}:{number}: JSON nested too deep to be read") from None
        if not isinstance(record, dict):
            raise BadInput(
                f"{path}:{number}: a {type(record).__name__}, where an object with {TEXT_COLUMN!r} is wanted"
            )
        if TEXT_COLUMN not in record:
            raise BadInput(f"{path}:{number}: no column {TEXT_COLUMN!r}; the columns are: {_names(record)}")
        if not isinstance(record[TEXT_COLUMN], str):
            kind = type(record[TEXT_COLUMN]).__name__
            raise BadInput(f"{path}:{number}: column {TEXT_COLUMN!r} is a {kind}, not a string")
        try:
            record[TEXT_COLUMN].encode()
        except UnicodeEncodeError as error:
            raise BadInput(f"{path}:{number}: half a character (a lone surrogate) at {error.start}") from None
        yield number, record[TEXT_COLUMN]


def _parquet(path: Path) -> Iterator[tuple[int, str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        columns = pq.read_schema(path).names
        if TEXT_COLUMN not in columns:
            raise BadInput(f"{path}: no column {TEXT_COLUMN!r}; the columns are: {_names(columns)}")
        column = pq.read_table(path, columns=[TEXT_COLUMN]).column(TEXT_COLUMN)
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"{path}: not a readable parquet file: {str(error).splitlines()[0]}") from None
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        raise BadInput(f"{path}: column {TEXT_COLUMN!r} is of type {column.type}, not string")
    for number, cell in enumerate(column, start=1):
        try:
            text = cell.as_py()
        except UnicodeDecodeError as error:
            raise BadInput(f"{path}: row {number}: not UTF-8 at byte {error.start:,}") from None
        if text is None:
            raise BadInput(f"{path}: row {number}: column {TEXT_COLUMN!r} is null")
        yield number, text


def _names(columns: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in columns) or "none"


def read_text(path: Path) -> str:
    """A file as UTF-8 text. Raises BadInput with the byte that is not."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from None
    binary = data.find(b"\0")
    if binary >= 0:
        raise BadInput(f"{path}: a binary file (a zero byte at offset {binary:,}), where UTF-8 text is wanted")
    try:
        return data.decode("utf-8-sig" if data.startswith(b"\xef\xbb\xbf") else "utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start:,}") from None


register("files", FilesCorpus)
