"""The run of one row and seed, a child of its invocation's."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.tables.build import SeedResult
from harness.tables.roads import road
from harness.tables.table import Row
from harness.tracking import artifacts, chosen, notes
from harness.tracking.connection import Connection
from harness.tracking.curves import CurveTail, Place, last_step, metric_key, shortened
from harness.tracking.recorded import NOTE, PARENT, Recorded

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

CURVE_PREFIX = "train"
_FOLLOW_SECONDS = 5.0


class TrackedRow(Recorded):
    """While it is open, a thread sends what its curves gain.

    identity: two invocations with the same are continuations of one another. curves: the names of those it will have
    (see `chosen.curve_keys`).
    """

    def __init__(
        self,
        connection: Connection,
        name: str,
        seed: int,
        *,
        kind: str,
        parent: str | None,
        identity: Sequence[str],
        headline: Sequence[str],
        tags: Mapping[str, str],
        params: Mapping[str, Any],
        curves: Sequence[str],
    ) -> None:
        super().__init__(connection)
        self.name, self.seed, self.headline = name, seed, headline
        self.key = hashlib.sha256(json.dumps([*identity, name, seed]).encode()).hexdigest()[:24]
        self.tails: dict[str, CurveTail] = {}
        self.curve_keys = chosen.curve_keys(curves)
        self.sending = threading.Lock()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        about = {"system": name, "kind": kind, "seed": str(seed), "harness.key": self.key, PARENT: parent or ""}
        params = {"system": name, "seed": seed, "kind": kind, **params}
        self._start(shortened(f"{name} seed {seed}"), {**tags, **about}, params)

    def _resumable(self, client: MlflowClient) -> Run | None:
        query = f"tags.`harness.key` = '{self.key}'"
        newest = client.search_runs([self.connection.experiment_id], query, order_by=["attributes.start_time DESC"])
        return newest[0] if newest and newest[0].info.status in ("KILLED", "FAILED") else None

    def curve(self, where: Place, prefix: str = "") -> None:
        """Follows a curve.jsonl from now on; it may not exist yet. prefix: the site of a dictionary, or nothing.

        Calling it again with the same prefix continues the same curve in another file (a work folder that became a
        stored stage) strictly after the last step that was sent, by this process or by the one it resumes.
        """
        if self.run_id is None or prefix not in self.curve_keys:
            return
        name = f"{CURVE_PREFIX}/{prefix}" if prefix else CURVE_PREFIX
        run_id = self.run_id
        with self.sending:
            if name in self.tails:
                self.tails[name].where = where
            else:
                sent = self.connection.attempt(lambda client: last_step(client, run_id, name))
                self.tails[name] = CurveTail(where, name, self.curve_keys[prefix], -1 if sent is None else sent)
        if self._thread is None:
            self._thread = threading.Thread(target=self._follow, daemon=True, name="curves")
            self._thread.start()

    def _follow(self) -> None:
        while not self._closed.wait(_FOLLOW_SECONDS) and self.connection.client is not None:
            self._send_curves()

    def _send_curves(self) -> None:
        def send(client: MlflowClient) -> None:
            assert self.run_id is not None
            for tail in self.tails.values():
                for batch in tail.batches():
                    client.log_batch(self.run_id, metrics=batch)

        with self.sending:
            self.connection.attempt(send)

    def details(self, folder: Path, metric: str) -> None:
        """What a metric left beside its figures."""
        if self.run_id is not None:
            run_id = self.run_id
            self.connection.attempt(lambda client: artifacts.send_details(client, run_id, folder, metric))

    def finish(self, result: SeedResult) -> None:
        """The final figures, synchronously."""

        def send(client: MlflowClient) -> None:
            assert self.run_id is not None
            send_metrics(client, self.run_id, chosen.final(result.measurements, self.headline))
            for name, tail in self.tails.items():
                path = tail.where() if callable(tail.where) else tail.where
                if path is not None and path.is_file():
                    client.log_artifact(self.run_id, str(path), metric_key(f"curves/{name}"))

        if self.run_id is not None:
            self._send_curves()
            self.connection.attempt(send)
            self.artifact(artifacts.figures(result.measurements), "figures.json")
            self.tag(
                {
                    "road": road(_as_row(result)),
                    "nan": chosen.not_numbers(result.measurements, self.headline),
                    NOTE: notes.of_row(result, self.headline),
                }
            )

    def close(self) -> None:
        self._closed.set()
        if self._thread is not None:
            self._thread.join()


def send_metrics(client: MlflowClient, run_id: str, figures: Mapping[str, float]) -> None:
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    client.log_batch(run_id, metrics=[Metric(key, value, now, 0) for key, value in figures.items()])


def _as_row(result: SeedResult) -> Row:
    return Row(
        system=result.system,
        kind=result.kind,
        seeds=[result.seed],
        metrics={},
        provenance=result.provenance,
        accounting=result.accounting,
        unmatched=result.unmatched,
    )
