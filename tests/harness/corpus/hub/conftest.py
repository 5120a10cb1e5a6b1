"""Local datasets in the shapes that the Hub has, and a store of its own for every test."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

Rows = list[dict[str, Any]]


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HARNESS_STORE", str(tmp_path / "store"))
    return tmp_path / "store"


@pytest.fixture(scope="session")
def text() -> Callable[..., str]:
    """Words that no other number shares, so that nothing is a near-duplicate by chance."""

    def make(number: int, length: int = 60) -> str:
        chance = random.Random(number)
        return " ".join(f"{chance.choice('bdfgklmn')}{chance.choice('aeiou')}{number}x{k}" for k in range(length))

    return make


@pytest.fixture(scope="session")
def rows(text: Callable[..., str]) -> Callable[..., Rows]:
    """So many records with their domain, in turn, in the column `kind`."""

    def make(count: int, domains: tuple[str, ...] = ("web", "law"), length: int = 60) -> Rows:
        return [{"id": n, "text": text(n, length), "kind": domains[n % len(domains)]} for n in range(count)]

    return make


@pytest.fixture(scope="session")
def save() -> Callable[..., Path]:
    """Records in a folder of several files, as parquet or jsonl by its ending."""

    def make(folder: Path, found: Rows, files: int = 3) -> Path:
        folder.mkdir(parents=True)
        size = -(-len(found) // files)
        for number in range(files):
            part = found[number * size : (number + 1) * size]
            if folder.suffix == ".parquet":
                pq.write_table(pa.Table.from_pylist(part), folder / f"{number}.parquet", row_group_size=20)
            else:
                (folder / f"{number}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
        return folder

    return make
