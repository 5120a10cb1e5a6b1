"""What a run keeps as files: what metrics left for people, its curves, its settings and all its figures."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.tables.measurement import Measurement

if TYPE_CHECKING:
    from mlflow import MlflowClient

_TABLE, _PAIRS = ".table.json", "pairs.json"
_FILES = (".md", ".html", ".parquet")


def send_details(client: MlflowClient, run_id: str, folder: Path, metric: str) -> None:
    """Pages and parquet files as they are; explanations and pairs as tables that the interface shows and compares."""
    for file in sorted(folder.iterdir()):
        if file.name.endswith(_TABLE):
            columns = json.loads(file.read_text(encoding="utf-8"))
            client.log_table(run_id, columns, f"{metric}/{file.name.removesuffix(_TABLE)}.json")
        elif file.name == _PAIRS:
            if columns := _pairs(json.loads(file.read_text(encoding="utf-8"))["pairs"]):
                client.log_table(run_id, columns, f"{metric}/{_PAIRS}")
        elif file.suffix in _FILES:
            client.log_artifact(run_id, str(file), metric)


def figures(measurements: Sequence[Measurement]) -> dict[str, Any]:
    """Every figure in full precision; of those that are none, why."""
    return {
        m.name: {"value": m.value, "unit": m.unit, "direction": m.direction}
        if math.isfinite(m.value)
        else {"value": None, "reason": m.reason or str(m.value)}
        for m in measurements
    }


def _pairs(pairs: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """A row a pair; of its contexts the first."""
    rows = [dict(_pair(pair)) for pair in pairs]
    names = list(dict.fromkeys(name for row in rows for name in row))
    return {name: [row.get(name) for row in rows] for name in names}


def _pair(pair: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in pair.items():
        if name == "contexts":
            first = value[0] if value else {}
            yield "context", first.get("text", "") + first.get("token", "")
        elif isinstance(value, list):
            yield name, " × ".join(map(str, value))
        else:
            yield name, value
