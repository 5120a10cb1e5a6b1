"""MLflow as a view of what is on disk: an experiment per comparison, a run per invocation, a child per row and seed.

Nothing here can lose or change a result (see harness/tracking/connection.py).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from harness.tables.provenance import git_commit
from harness.tables.table import Table
from harness.tracking import chosen, notes, views
from harness.tracking.connection import Connection
from harness.tracking.curves import metric_key
from harness.tracking.parameters import Key, Parameters, of_comparison
from harness.tracking.recorded import COLOUR, NOTE, Recorded
from harness.tracking.row import TrackedRow, send_metrics
from harness.tracking.server import address

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

_MACHINE_SECONDS = 10


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


class Tracker(Connection):
    """The connection of one comparison. config: its experiment, every setting."""

    def __init__(self, name: str, config: Mapping[str, Any], store: Path, *, enabled: bool = True) -> None:
        super().__init__(name, store, enabled=enabled)
        self.config = config

    @contextlib.contextmanager
    def invocation(
        self,
        corpus: CorpusSummary,
        config_hash: str,
        *,
        rows: Mapping[Key, Mapping[str, Any]] = MappingProxyType({}),
        matched: str | None = None,
        made_by: tuple[str | None, bool | None] | None = None,
    ) -> Iterator[Invocation]:
        """The parent run of everything inside. FAILED with its traceback, or KILLED, when the block raises.

        rows: the settings of every row that will come. matched: what is equal in them. made_by: commit and dirty flag
        of the code behind the results, where it is not the code that runs now.
        """
        commit, dirty = made_by or git_commit()
        tags = {
            "commit": f"{(commit or 'unknown')[:12]}{' with uncommitted changes' if dirty else ''}",
            "mlflow.source.git.commit": commit or "unknown",
        }
        if matched is not None:
            tags["matched"] = matched
        run = Invocation(self, tags, corpus, config_hash, Parameters.of(rows))
        with run.recorded():
            try:
                yield run
            finally:
                run.close()

    def links(self) -> dict[str, str]:
        """The chart views of this comparison, by name, at the server that shows them; {} where none does."""
        base = address(self.store) if self.local else self.uri.rstrip("/")
        names = self.attempt(lambda client: views.written(client.get_experiment(self.experiment_id).tags))
        return views.links(base, self.experiment_id, names or ()) if base and base.startswith("http") else {}


class Invocation(Recorded):
    """The parent run."""

    def __init__(
        self,
        tracker: Tracker,
        tags: Mapping[str, str],
        corpus: CorpusSummary,
        config_hash: str,
        parameters: Parameters,
    ) -> None:
        super().__init__(tracker)
        self.tracker, self.tags, self.corpus = tracker, tags, corpus
        self.config_hash, self.parameters = config_hash, parameters
        self.headline = [str(name) for name in tracker.config.get("headline") or ()]
        self._rows: list[TrackedRow] = []
        self._monitor: Any = None
        name = f"{tracker.name} {time.strftime('%Y-%m-%d %H:%M:%S')}"
        corpus_digest = corpus.content_hash[:12]
        params = {**of_comparison(tracker.config), "corpus_digest": corpus_digest, "config": config_hash}
        self._start(name, {**tags, "kind": views.COMPARISON}, params)
        self._log_corpus(self)
        if parameters.constant:
            self.artifact(parameters.constant, "constant_parameters.json")
        self.connection.attempt(self._watch_machine)

    def _watch_machine(self, client: MlflowClient) -> None:
        """Here and not on the rows: MLflow puts what begins with system/ before all other charts of a comparison."""
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        self._monitor = SystemMetricsMonitor(
            self.run_id, sampling_interval=_MACHINE_SECONDS, samples_before_logging=1, tracking_uri=self.connection.uri
        )
        self._monitor.start()

    def close(self) -> None:
        if self._monitor is not None:
            self._monitor.finish()

    def _log_corpus(self, run: Recorded) -> None:
        """Named by its digest: the same text is the same data set in every experiment."""

        def send(client: MlflowClient) -> None:
            from mlflow.entities import Dataset, DatasetInput

            profile = json.dumps(vars(self.corpus), default=vars)[:100_000]
            source = json.dumps(self.tracker.config.get("corpus", {}), default=str)
            digest = self.corpus.content_hash
            dataset = Dataset(f"corpus {digest[:12]}", digest[:36], "local", source, profile=profile)
            assert run.run_id is not None
            client.log_inputs(run.run_id, [DatasetInput(dataset)])

        if run.run_id is not None:
            self.connection.attempt(send)

    @contextlib.contextmanager
    def row(self, name: str, seed: int, kind: str, curves: Sequence[str] = ()) -> Iterator[TrackedRow]:
        """The child run of one row and seed; a killed or failed one of the same config is continued.

        curves: names of the curves that it will have: "" of a subject, of dictionaries their sites.
        """
        run = TrackedRow(
            self.connection,
            name,
            seed,
            kind=kind,
            parent=self.run_id,
            identity=(self.config_hash, self.corpus.content_hash),
            headline=self.headline,
            tags=self.tags,
            params=self.parameters.varying((name, seed)),
            curves=curves,
        )
        self._rows.append(run)
        self._log_corpus(run)
        if settings := self.parameters.rows.get((name, seed)):
            run.artifact(settings, "config.json")
        try:
            with run.recorded():
                yield run
        finally:
            run.close()
            self._write_views()

    def finish(self, table: Table, folder: Path, colours: Mapping[str, str] = MappingProxyType({})) -> None:
        """Table and figures of a finished results folder as artifacts; headline, descriptions and chart views.

        colours: `#rrggbb` by system, what each has in figures.
        """

        def send(client: MlflowClient) -> None:
            assert self.run_id is not None
            for name in ("table.md", "details.md", "table.csv", "table.json", "experiment.yaml", "report.html"):
                if (folder / name).is_file():
                    client.log_artifact(self.run_id, str(folder / name))
            for figure in sorted((folder / "figures").glob("*")):
                if figure.suffix in (".png", ".html"):
                    client.log_artifact(self.run_id, str(figure), "figures")
            send_metrics(client, self.run_id, chosen.of_every_system(table))

        def tell(client: MlflowClient) -> None:
            assert self.run_id is not None
            experiment = self.connection.experiment_id
            names = views.written(client.get_experiment(experiment).tags)
            told = notes.of_comparison(table, views.links("", experiment, names))
            client.set_tag(self.run_id, NOTE, told)
            client.set_experiment_tag(experiment, NOTE, told)
            client.set_tag(self.run_id, "harness.table", table_digest(table))

        if self.run_id is not None:
            self.connection.attempt(send)
            for row in self._rows:
                row.tag({COLOUR: colours.get(row.name)})
            self._write_views()
            self.connection.attempt(tell)
        if self.connection.client is not None:
            self._say_where()

    def _write_views(self) -> None:
        if self.run_id is not None:
            run_id, experiment = self.run_id, self.connection.experiment_id
            asked = [metric_key(name) for name in self.headline]
            self.connection.attempt(lambda client: views.write(client, experiment, run_id, asked))

    def _say_where(self) -> None:
        serves = address(self.connection.store) if self.connection.local else self.connection.uri
        log.info("curves and runs: %s", serves or "harness ui")
        for name, link in self.tracker.links().items():
            log.info("  %-20s %s", name, link)


def table_digest(table: Table) -> str:
    """Tells whether MLflow has this table already; two runs that agree but for timing are one."""
    return hashlib.sha256(table.without_timing().model_dump_json().encode()).hexdigest()[:24]
