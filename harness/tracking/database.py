"""Where runs are kept: the SQLite store below the harness's own, or the server at MLFLOW_TRACKING_URI."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from harness.base.files import locked
from harness.tracking.moved import follow_move

if TYPE_CHECKING:
    from mlflow import MlflowClient

_ENVIRONMENT = {  # ours unless the user set them
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


def local_uri(store: Path) -> str:
    return f"sqlite:///{(store / 'mlflow' / 'mlflow.db').resolve()}"


def database_of(uri: str) -> Path | None:
    """The file of an SQLite URI (`sqlite:///x.db` lies in the current folder, `sqlite:////x.db` at the root); None for
    a server, another database or one in memory."""
    head, _, rest = uri.partition(":///")
    path = rest.partition("?")[0]
    if head.partition("+")[0] != "sqlite" or not path or path == ":memory:" or path.startswith("file:"):
        return None
    return Path(path).resolve()


def connect(uri: str, store: Path, name: str) -> tuple[MlflowClient, str]:
    """The client and the id of the experiment `name`, made if it is not there. Raises whatever MLflow raises."""
    for variable, value in _ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    for noisy in ("alembic", "mlflow.store", "mlflow.system_metrics"):  # mlflow sets levels when it is imported
        logging.getLogger(noisy).setLevel(logging.ERROR)

    # Of any SQLite file, ours or the user's: without an explicit place artifacts go below the current folder, and of
    # two processes that migrate a new database at once one fails, or breaks it for good.
    database = database_of(uri)
    place = (database.parent / "artifacts" / name).as_uri() if database else None
    if database:
        open_database(database)
    with _held(database) if database else contextlib.nullcontext():
        client = MlflowClient(uri)
        found = client.get_experiment_by_name(name)
        if found is None:
            try:
                client.create_experiment(name, artifact_location=place)
            except MlflowException:
                if client.get_experiment_by_name(name) is None:  # on a server, another client may have been first
                    raise
            found = client.get_experiment_by_name(name)
            assert found is not None
        experiment_id = found.experiment_id
        if found.lifecycle_stage == "deleted":
            client.restore_experiment(experiment_id)
        client.set_experiment_tag(experiment_id, "harness.comparison", name)
    return client, experiment_id


def open_database(database: Path) -> None:
    """Makes it if it is not there; if it lies elsewhere than it used to, so do its artifacts from now on."""
    database.parent.mkdir(parents=True, exist_ok=True)
    with _held(database):
        if database.exists():
            follow_move(database)
        else:
            _create(database)


def _held(database: Path) -> contextlib.AbstractContextManager[object]:
    return locked(database.with_name(f"{database.name}.lock"))


def _create(database: Path) -> None:
    """MLflow makes its tables one by one; a kill or a full disk in between would leave a store that never opens. So
    they are made aside, and the database appears whole."""
    from mlflow import MlflowClient

    aside = database.parent / f".{database.name}.new"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    MlflowClient(f"sqlite:///{aside / database.name}").search_experiments(max_results=1)
    (aside / database.name).rename(database)
    shutil.rmtree(aside, ignore_errors=True)


def process_runs(pid: int, started: float) -> bool:
    """Whether that very process still runs: process ids are used again."""
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - started) < 2
    except psutil.NoSuchProcess:
        return False
