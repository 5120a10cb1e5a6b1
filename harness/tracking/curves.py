"""What is sent to MLflow: names it accepts, curves in batches, final figures."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

BATCH = 1000  # metrics in one request: MLflow's limit
_PARAM_LENGTH = 6000
_LONGEST_NAME = 250
Place = Path | Callable[[], Path | None]  # where a curve is, or how to find it once it is there


def shortened(name: str) -> str:
    """A name as MLflow takes it: of a very long one (rows with all their settings in brackets) the beginning and a
    digest that tells it from others. The whole name of a row is the value of the parameter `system`."""
    if len(name) <= _LONGEST_NAME:
        return name
    return f"{name[: _LONGEST_NAME - 9]} {hashlib.sha256(name.encode()).hexdigest()[:8]}"


def metric_key(name: str) -> str:
    """MLflow refuses '+', brackets and '=' in keys, and keys of more than 250 characters."""
    return re.sub(r"[^\w\-. :/]", ".", shortened(name))


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as MLflow params: dotted keys, JSON for what is not text."""
    found: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, default=str)
            found[metric_key(f"{prefix}{key}")] = text[:_PARAM_LENGTH]
    return found


class CurveTail:
    """The lines of a curve.jsonl that were not sent yet. keys: the columns that are."""

    def __init__(self, where: Place, name: str, keys: Sequence[str] | None = None, last_step: int = -1) -> None:
        self.where, self.name, self.keys, self.last_step = where, name, keys, last_step
        self.offset = 0
        self._read: Path | None = None

    def rows(self) -> list[dict[str, float]]:
        """Whole new lines, of steps after the last one; a file that shrank (a resumed run cut it), or another one, is
        read from its beginning."""
        path = self.where() if callable(self.where) else self.where
        if path is None:
            return []
        if path != self._read:
            self._read, self.offset = path, 0
        try:
            with path.open("rb") as file:
                if file.seek(0, os.SEEK_END) < self.offset:
                    self.offset = 0
                file.seek(self.offset)
                data = file.read()
        except FileNotFoundError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self.offset += len(whole)
        rows = []
        for line in whole.splitlines():
            row = json.loads(line)
            if row["step"] > self.last_step:
                rows.append(row)
                self.last_step = row["step"]
        return rows

    def batches(self) -> Iterator[list[Metric]]:
        """Metrics of the new rows. A step is never cut in two: what was sent ends at a step."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        batch: list[Metric] = []
        for row in self.rows():
            step = [
                Metric(metric_key(f"{self.name}/{key}"), float(f"{value:.6g}"), now, int(row["step"]))
                for key, value in row.items()
                if isinstance(value, int | float) and (key in self.keys if self.keys is not None else key != "step")
            ]
            if len(batch) + len(step) > BATCH:
                yield batch
                batch = []
            batch += step
        if batch:
            yield batch


def last_step(client: MlflowClient, run_id: str, name: str) -> int:
    """The last step of a curve that MLflow has; -1 if none."""
    keys = [key for key in client.get_run(run_id).data.metrics if key.rpartition("/")[0] == metric_key(name)]
    return max((m.step for key in keys for m in client.get_metric_history(run_id, key)), default=-1)
