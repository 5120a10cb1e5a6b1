"""MLflow as a view of what is on disk: an experiment per comparison, a run per invocation, a child per row and seed.

Nothing here can lose or change a result. Every file is written before it is sent; the first error is said in
one line and tracking is off for the rest of the invocation; `harness log RESULTS` sends it later.
mlflow is imported inside functions (1.5 s), so that `tracking: off` never pays for it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import os
import platform
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import psutil

from harness.base.errors import HarnessError, Interrupted
from harness.tables.build import SeedResult
from harness.tables.measurement import Measurement
from harness.tables.provenance import git_commit
from harness.tables.table import Table
from harness.tracking import views as tracking_views
from harness.tracking.curves import BATCH, CurveTail, flat, last_step, metric_key, shortened
from harness.tracking.database import connect, local_uri, process_runs

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

log = logging.getLogger(__name__)
T = TypeVar("T")

CURVE_PREFIX = "train"
_FOLLOW_SECONDS = 5.0
_PARENT, _NAME = "mlflow.parentRunId", "mlflow.runName"


class CorpusSummary(Protocol):
    """What is told of the corpus: its hash, and every other attribute as the profile."""

    @property
    def content_hash(self) -> str: ...


class ExperimentInfo(Protocol):
    """What tracking needs of harness.experiment.schema.Experiment."""

    @property
    def name(self) -> str: ...
    @property
    def tracking(self) -> str: ...
    def model_dump(self) -> dict[str, Any]: ...


def tracker(experiment: ExperimentInfo, store: Path) -> Tracker:
    """Tracking of one experiment: at MLFLOW_TRACKING_URI, or else in the SQLite store below `store`."""
    return Tracker(experiment.name, experiment.model_dump(), store, enabled=experiment.tracking != "off")


class Tracker:
    """The connection. `client` is None once tracking is off."""

    def __init__(self, name: str, config: Mapping[str, Any], store: Path, *, enabled: bool = True) -> None:
        self.name, self.config, self.store = name, config, store
        self.uri = os.environ.get("MLFLOW_TRACKING_URI") or local_uri(store)
        self.client: MlflowClient | None = None
        self.experiment_id = ""
        if enabled:
            try:
                self.client, self.experiment_id = connect(self.uri, store, name)
            except Exception as error:  # whatever MLflow or its store raises, a run must go on
                self.turn_off(error)
            self.attempt(self._reap)

    def attempt(self, action: Callable[[MlflowClient], T]) -> T | None:
        """Does it; after the first error nothing is tried any more, and None is returned."""
        client = self.client
        if client is None:
            return None
        try:
            return action(client)
        except HarnessError:
            raise  # SIGTERM arrives as one, anywhere
        except Exception as error:
            self.turn_off(error)
            return None

    def turn_off(self, error: Exception) -> None:
        log.debug("tracking error", exc_info=error)
        self.client = None
        remote = self.uri.startswith("http") and "RestException" not in type(error).__name__
        reason = "unreachable" if remote else f"failed ({str(error).splitlines()[0][:120] if str(error) else error!r})"
        what = "server" if remote else "to"
        log.warning(
            "tracking %s %s %s: results are on disk; send them later with: harness log RESULTS", what, self.uri, reason
        )

    def _reap(self, client: MlflowClient) -> None:
        """A process that was killed left its runs RUNNING for ever: mark them."""
        experiments = client.search_experiments(filter_string="tags.`harness.comparison` LIKE '%'")
        query = f"attributes.status = 'RUNNING' and tags.`harness.host` = '{platform.node()}'"
        for run in client.search_runs([e.experiment_id for e in experiments], query):
            tags = run.data.tags
            if not process_runs(int(tags["harness.pid"]), float(tags["harness.process_started"])):
                client.set_tag(run.info.run_id, "harness.reaped", f"process {tags['harness.pid']} is gone")
                client.set_terminated(run.info.run_id, "KILLED")
                log.info("tracking: run %s was killed earlier, marked so", tags.get(_NAME, run.info.run_id))

    @contextlib.contextmanager
    def invocation(
        self, corpus: CorpusSummary, config_hash: str, made_by: tuple[str | None, bool | None] | None = None
    ) -> Iterator[Invocation]:
        """The parent run of everything inside. FAILED with its traceback, or KILLED, when the block raises.

        `made_by`: commit and dirty flag of the code behind the results, where it is not the code that runs now.
        """
        commit, dirty = made_by or git_commit()
        tags = {
            "harness.config_hash": config_hash,
            "harness.corpus_hash": corpus.content_hash,
            "mlflow.source.git.commit": commit or "unknown",
            "harness.dirty": str(dirty),
        }
        run = Invocation(self, tags, corpus)
        with run.recorded():
            yield run

    def links(self) -> list[str]:
        """Where to look: the named chart views of this comparison."""
        base = self.uri.rstrip("/") if self.uri.startswith("http") else "http://127.0.0.1:5000"
        return [tracking_views.link(base, self.experiment_id, view) for view in tracking_views.NAMES]


class _Recorded:
    """An MLflow run that this process has open."""

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker
        self.run_id: str | None = None

    def _start(self, name: str, tags: Mapping[str, str], params: Mapping[str, Any]) -> None:
        def start(client: MlflowClient) -> str:
            process = psutil.Process()
            owner = {
                "harness.host": platform.node(),
                "harness.pid": str(process.pid),
                "harness.process_started": str(process.create_time()),
            }
            resumed = self._resumable(client)
            if resumed is None:
                created = client.create_run(self.tracker.experiment_id, tags={**tags, **owner}, run_name=name)
                self._log_params(client, created.info.run_id, flat(params))
                return created.info.run_id
            for key, value in {**tags, **owner, "harness.resumed": "true"}.items():
                client.set_tag(resumed.info.run_id, key, value)
            for gone in {"harness.reaped", "harness.traceback"} & resumed.data.tags.keys():
                client.delete_tag(resumed.info.run_id, gone)
            client.update_run(resumed.info.run_id, status="RUNNING")
            return resumed.info.run_id

        self.run_id = self.tracker.attempt(start)

    def _resumable(self, client: MlflowClient) -> Run | None:
        return None

    def _log_params(self, client: MlflowClient, run_id: str, params: dict[str, str]) -> None:
        from mlflow.entities import Param

        items = [Param(key, value) for key, value in params.items()]
        for start in range(0, len(items), 100):
            client.log_batch(run_id, params=items[start : start + 100])

    def _stop(self, status: str, error: BaseException | None = None) -> None:
        def stop(client: MlflowClient) -> None:
            assert self.run_id is not None
            if error is not None:
                text = "".join(traceback.format_exception(error))
                client.set_tag(self.run_id, "harness.traceback", text[-4000:])
                client.log_text(self.run_id, text, "traceback.txt")
            client.set_terminated(self.run_id, status)

        if self.run_id is not None:
            self.tracker.attempt(stop)

    @contextlib.contextmanager
    def recorded(self) -> Iterator[None]:
        """Ends the run as what the block did."""
        try:
            yield
        except (Interrupted, KeyboardInterrupt, SystemExit):
            self._stop("KILLED")
            raise
        except BaseException as error:
            self._stop("FAILED", error)
            raise
        self._stop("FINISHED")


class Invocation(_Recorded):
    """The parent run."""

    def __init__(self, tracker: Tracker, tags: Mapping[str, str], corpus: CorpusSummary) -> None:
        super().__init__(tracker)
        self.tags, self.corpus = tags, corpus
        self.curve_keys: set[str] = set()
        name = f"{tracker.name} {time.strftime('%Y-%m-%d %H:%M:%S')}"
        self._start(name, tags, {**tracker.config, "stage": "comparison", "corpus_digest": corpus.content_hash[:12]})
        self.log_corpus(self)

    def log_corpus(self, run: _Recorded) -> None:
        def send(client: MlflowClient) -> None:
            from mlflow.entities import Dataset, DatasetInput

            profile = json.dumps(vars(self.corpus), default=vars)[:100_000]
            source = json.dumps(self.tracker.config.get("corpus", {}), default=str)
            name = f"corpus of {self.tracker.name}"
            dataset = Dataset(name, self.corpus.content_hash[:36], "local", source, profile=profile)
            assert run.run_id is not None
            client.log_inputs(run.run_id, [DatasetInput(dataset)])

        if run.run_id is not None:
            self.tracker.attempt(send)

    @contextlib.contextmanager
    def row(self, name: str, seed: int, params: Mapping[str, Any]) -> Iterator[TrackedRow]:
        """The child run of one row and seed; a killed or failed one of the same config is continued."""
        run = TrackedRow(self, name, seed, params)
        try:
            with run.recorded():
                yield run
        finally:
            run.close()
            self.curve_keys.update(*(tail.keys for tail in run.tails.values()))

    def finish(self, table: Table, folder: Path) -> None:
        """Table and figures of a finished results folder as artifacts, and the chart views."""

        def send(client: MlflowClient) -> None:
            assert self.run_id is not None
            for name in ("table.md", "table.csv", "table.json", "experiment.yaml"):
                if (folder / name).is_file():
                    client.log_artifact(self.run_id, str(folder / name))
            for figure in sorted((folder / "figures").glob("*")):
                if figure.suffix in (".png", ".html"):
                    client.log_artifact(self.run_id, str(figure), "figures")
            client.set_tag(self.run_id, "harness.table", table_digest(table))
            tracking_views.write(
                client, self.tracker.experiment_id, {metric_key(n) for n in table.metric_names()} | self.curve_keys
            )

        if self.run_id is not None:
            self.tracker.attempt(send)
        if self.tracker.client is not None:
            local = self.tracker.uri == local_uri(self.tracker.store)
            log.info("curves and runs: %s", "harness ui" if local else self.tracker.uri)
            for line in self.tracker.links():
                log.info("%s", line)


class TrackedRow(_Recorded):
    """A child run. While it is open, a thread sends what its curves gain, and MLflow samples the machine."""

    def __init__(self, invocation: Invocation, name: str, seed: int, params: Mapping[str, Any]) -> None:
        super().__init__(invocation.tracker)
        self.name = name
        identity = json.dumps([invocation.tags["harness.config_hash"], invocation.corpus.content_hash, name, seed])
        self.key = hashlib.sha256(identity.encode()).hexdigest()[:24]
        self.tails: dict[str, CurveTail] = {}
        self.sending = threading.Lock()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._monitor: Any = None
        tags = {**invocation.tags, "harness.key": self.key, _PARENT: invocation.run_id or ""}
        params = {"system": name, "seed": seed, "stage": "system", **params}
        params["corpus_digest"] = invocation.corpus.content_hash[:12]
        self._start(shortened(f"{name} seed {seed}"), tags, params)
        invocation.log_corpus(self)
        self.tracker.attempt(self._watch_machine)

    def _resumable(self, client: MlflowClient) -> Run | None:
        query = f"tags.`harness.key` = '{self.key}'"
        newest = client.search_runs([self.tracker.experiment_id], query, order_by=["attributes.start_time DESC"])
        return newest[0] if newest and newest[0].info.status in ("KILLED", "FAILED") else None

    def _watch_machine(self, client: MlflowClient) -> None:
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        self._monitor = SystemMetricsMonitor(
            self.run_id, sampling_interval=1, resume_logging=True, tracking_uri=self.tracker.uri
        )
        self._monitor.start()

    def curve(self, path: Path, prefix: str = "") -> None:
        """Follows a curve.jsonl from now on; it may not exist yet.

        Calling it again with the same prefix continues the same curve in another file (a work folder that became a
        stored stage) strictly after the last step that was sent, by this process or by the one it resumes.
        """
        if self.run_id is None:
            return
        name = f"{CURVE_PREFIX}/{prefix}" if prefix else CURVE_PREFIX
        run_id = self.run_id
        with self.sending:
            if name in self.tails:
                self.tails[name].move(path)
            else:
                sent = self.tracker.attempt(lambda client: last_step(client, run_id, name))
                self.tails[name] = CurveTail(path, name, -1 if sent is None else sent)
        if self._thread is None:
            self._thread = threading.Thread(target=self._follow, daemon=True, name="curves")
            self._thread.start()

    def _follow(self) -> None:
        while not self._closed.wait(_FOLLOW_SECONDS) and self.tracker.client is not None:
            self._send_curves()

    def _send_curves(self) -> None:
        def send(client: MlflowClient) -> None:
            assert self.run_id is not None
            for tail in self.tails.values():
                for batch in tail.batches():
                    client.log_batch(self.run_id, metrics=batch)

        with self.sending:
            self.tracker.attempt(send)

    def details(self, folder: Path, metric: str) -> None:
        """What a metric left beside its figures: pages and parquet files as artifacts, `*.table.json` (columns of plain
        values) as tables that the interface can show."""

        def send(client: MlflowClient) -> None:
            assert self.run_id is not None
            for file in sorted(folder.iterdir()):
                if file.name.endswith(".table.json"):
                    columns = json.loads(file.read_text(encoding="utf-8"))
                    client.log_table(self.run_id, columns, f"{metric}/{file.name.removesuffix('.table.json')}.json")
                elif file.suffix in (".md", ".html", ".parquet"):
                    client.log_artifact(self.run_id, str(file), metric)

        if self.run_id is not None:
            self.tracker.attempt(send)

    def finish(self, result: SeedResult) -> None:
        """The final figures, synchronously."""
        if self.run_id is not None:
            run_id = self.run_id
            self._send_curves()
            self.tracker.attempt(lambda client: send_measurements(client, run_id, result.measurements))

    def close(self) -> None:
        self._closed.set()
        if self._thread is not None:
            self._thread.join()
        if self._monitor is not None:
            self._monitor.finish()


def send_measurements(client: MlflowClient, run_id: str, measurements: list[Measurement]) -> None:
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    metrics = [Metric(metric_key(m.name), float(m.value), now, 0) for m in measurements if math.isfinite(m.value)]
    for start in range(0, len(metrics), BATCH):
        client.log_batch(run_id, metrics=metrics[start : start + BATCH])


def table_digest(table: Table) -> str:
    """Tells whether MLflow has this table already; two runs that agree but for timing are one."""
    return hashlib.sha256(table.without_timing().model_dump_json().encode()).hexdigest()[:24]
