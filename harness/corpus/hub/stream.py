"""A dataset as a stream of rows, from the Hub or from local files by the same code of `datasets`.

A stream can be left and taken up again: `position()` is what `datasets` needs for it. It goes back to the row; on the
way there the rows before it in the same file (parquet: the row groups) are read once more and dropped. Files come in an
order of the seed. Rows are not mixed here: the buffer of `IterableDataset.shuffle` loses what it holds when a
read is taken up again, so `spool.py` mixes blocks between two positions.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.base.errors import BadInput, HarnessError
from harness.corpus.folder import files_of
from harness.corpus.hub.network import gated, is_network, reason
from harness.corpus.hub.recipes import Origin
from kernels.registry import nearest

if TYPE_CHECKING:
    from datasets import DatasetBuilder, IterableDataset

# Builder of `datasets` -> how its files end; each also packed.
_FORMATS = {"parquet": (".parquet",), "json": (".jsonl", ".ndjson", ".json")}
_PACKED = ("", ".gz", ".zst", ".bz2", ".xz")
# Files that are read at once where a column says the domain: a file often holds one domain only. Each costs a
# connection and its own read ahead, so a dataset of one domain is read file by file.
_FILES_AT_ONCE = 10


class Stream:
    """Open rows of one split. Raises BadInput for what the dataset does not have; the network's errors pass through."""

    def __init__(self, origin: Origin, commit: str, seed: int, position: dict[str, Any] | None) -> None:
        self._origin = origin
        with _quietly(), _told(origin):
            rows = _opened(origin, commit)
            at_once = _FILES_AT_ONCE if origin.domain_column and not origin.begins else 1
            self._rows = rows.shuffle(seed=seed, buffer_size=1, max_buffer_input_shards=at_once)
            if position is not None:
                self._rows.load_state_dict(position)
            self._iterator = iter(self._rows)

    def take(self, count: int) -> list[tuple[str, str | None]]:
        """Text and domain of the next rows, fewer than `count` only at the end. No text is ""."""
        with _quietly(), _told(self._origin):
            rows: list[dict[str, Any]] = list(islice(self._iterator, count))
        return [self._read(row) for row in rows]

    def position(self) -> dict[str, Any]:
        return self._rows.state_dict()

    def _read(self, row: dict[str, Any]) -> tuple[str, str | None]:
        origin = self._origin
        assert origin.text_column is not None
        text = _cell(row, origin.text_column, origin)
        if text is not None and not isinstance(text, str):
            strings = [name for name, value in row.items() if isinstance(value, str)]
            raise BadInput(
                f"{origin.place()}: column {origin.text_column!r} is of type {type(text).__name__}, not text; "
                f"columns of text: {_names(strings)}"
            )
        domain = None if origin.domain_column is None else _cell(row, origin.domain_column, origin)
        if isinstance(domain, dict | list):
            inside = f"; inside: {_names(f'{origin.domain_column}.{key}' for key in domain)}"
            raise BadInput(
                f"{origin.place()}: domain_column {origin.domain_column!r} is of type {type(domain).__name__}, no name"
                f"{inside if isinstance(domain, dict) else ''}"
            )
        return text or "", None if domain is None else str(domain)


def _cell(row: dict[str, Any], column: str, origin: Origin) -> Any:
    """A value by its column, or by its way inside one. None where the way ends in nothing."""
    if column in row:
        return row[column]
    first, *inside = column.split(".")
    if first not in row:
        raise BadInput(_no_column(origin, column, row))
    value = row[first]
    for name in inside:
        if value is None:
            return None
        if not isinstance(value, dict) or name not in value:
            there = [f"{first}.{key}" for key in value] if isinstance(value, dict) else [first]
            raise BadInput(_no_column(origin, column, there))
        value = value[name]
    return value


def _no_column(origin: Origin, column: str, columns: Iterable[str]) -> str:
    setting = "text_column" if column == origin.text_column else "domain_column"
    columns = list(columns)
    near = nearest(column, columns).split("? ")
    hint = f"{near[0]}? " if len(near) > 1 else ""
    return f"{origin.place()} has no column {column!r} ({setting}); {hint}the columns are: {_names(columns)}"


def _names(columns: Iterable[str]) -> str:
    return ", ".join(repr(str(name)) for name in columns) or "none"


def _opened(origin: Origin, commit: str) -> IterableDataset:
    """The rows, of nothing but the columns that are read where the format can leave the others out."""
    builder = _builder(origin, commit)
    _check_packing(builder, origin)
    splits = builder.as_streaming_dataset()
    assert isinstance(splits, dict)
    split = origin.split or "train"
    if split not in splits:
        raise BadInput(f"{origin.place()} has no split {split!r}; {nearest(split, map(str, splits))}")
    rows = splits[split]
    if rows.features is None:
        return rows
    asked = [column for column in (origin.text_column, origin.domain_column) if column is not None]
    for column in asked:
        if column not in rows.features and column.split(".")[0] not in rows.features:
            raise BadInput(_no_column(origin, column, list(rows.features)))
    wanted = list(dict.fromkeys(each if each in rows.features else each.split(".")[0] for each in asked))
    if hasattr(builder.config, "columns"):  # parquet: the others are not even fetched
        builder.config.columns = wanted  # type: ignore[reportAttributeAccessIssue]
        rows = builder.as_streaming_dataset(split)
        assert not isinstance(rows, dict)
    return rows


def _builder(origin: Origin, commit: str) -> DatasetBuilder:
    from datasets import load_dataset_builder

    if origin.path is None:
        assert origin.dataset is not None
        return load_dataset_builder(origin.dataset, name=origin.config, revision=commit)
    split = origin.split or "train"
    if split != "train":
        raise BadInput(f"{origin.place()}: local files have the split train alone, not {split!r}")
    kind, files = _local(origin.path)
    return load_dataset_builder(kind, data_files={"train": [str(file) for file in files]})


def _local(path: Path) -> tuple[str, list[Path]]:
    """How to read the files of a folder, which all must be of one format."""
    files = files_of(path)
    by_kind: dict[str, list[Path]] = {}
    for name, file in files.items():
        for kind, endings in _FORMATS.items():
            if name.lower().endswith(tuple(ending + packed for ending in endings for packed in _PACKED)):
                by_kind.setdefault(kind, []).append(file.resolve())
    if len(by_kind) > 1:
        firsts = ", ".join(found[0].name for found in by_kind.values())
        raise BadInput(f"{path} holds parquet and jsonl ({firsts}); give one of them")
    if not by_kind:
        others = f"; there is {next(iter(files))}" if files else ""
        raise BadInput(f"no .parquet or .jsonl file in {path}{others} (other texts: corpus.kind=files)")
    return next(iter(by_kind.items()))


def _check_packing(builder: DatasetBuilder, origin: Origin) -> None:
    """Told before the first file is opened. The other packings are Python's own."""
    from fsspec.compression import compr

    files = [str(file) for found in (builder.config.data_files or {}).values() for file in found]
    if "zstd" not in compr and any(file.endswith(".zst") for file in files):
        raise BadInput(f"{origin.place()} is packed with zstd, which is not installed: pip install zstandard")


@contextlib.contextmanager
def _told(origin: Origin) -> Iterator[None]:
    """What `datasets` raises as one line; what the network does passes, to be tried again."""
    try:
        yield
    except HarnessError:
        raise
    except Exception as error:
        if is_network(error):
            raise
        raise BadInput(_line(origin, error)) from error


def _line(origin: Origin, error: Exception) -> str:
    text = reason(error)
    if "gated" in text.lower() and origin.dataset:
        return gated(origin.dataset)
    configs = re.search(r"(?:not found\. Available|available configs): \[(.*?)\]", " ".join(str(error).split()))
    if configs:
        names = re.findall(r"'([^']*)'", configs[1])
        if origin.config is None:
            return f"{origin.place()} has several configs; set config to one of: {', '.join(names)}"
        return f"dataset {origin.dataset} has no config {origin.config!r}; {nearest(origin.config, names)}"
    if "scripts are no longer supported" in text:
        return f"{origin.place()} is made by a program of its own, which is never run here; take one that holds files"
    return f"{origin.place()} cannot be read: {type(error).__name__}: {text}"


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """No bars, no word of a shuffle buffer that is not used, and errors once: in the line that is made of them."""
    import datasets
    from datasets.utils import logging as words

    showed, level = datasets.is_progress_bar_enabled(), words.get_verbosity()
    datasets.disable_progress_bars()
    words.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        words.set_verbosity(level)
        if showed:
            datasets.enable_progress_bars()
