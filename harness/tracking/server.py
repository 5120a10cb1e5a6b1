"""`harness ui`: MLflow's own server on the runs of this machine, and where it answers."""

from __future__ import annotations

import contextlib
import importlib.util
import ipaddress
import json
import logging
import os
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from harness.base.errors import BadInput, HarnessError
from harness.base.files import write_atomically
from harness.tracking import views
from harness.tracking.database import local_uri, open_database, process_runs

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
_WORKERS = 1  # a person clicks at one thing at a time; each worker takes 250 MB
_START_SECONDS, _SAY_EVERY = 300.0, 10.0
# What MLflow's own passwords need.
_AUTH = {
    "MLFLOW_AUTH_CONFIG_PATH": "an .ini file with the users' database and the administrator's first password",
    "MLFLOW_FLASK_SERVER_SECRET_KEY": "any long random text",
}


@dataclass(frozen=True)
class Running:
    """A server that answers at `base`."""

    base: str
    process: subprocess.Popen[bytes]

    def wait(self) -> None:
        """Until it ends by itself; Ctrl-C ends the wait."""
        while self.process.poll() is None:
            time.sleep(0.5)


def command(store: Path, port: int, host: str = LOOPBACK) -> list[str]:
    """The command that serves the local store; `env` is Linux's and macOS's."""
    found = [sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port)]
    found += ["--workers", str(_WORKERS), "--backend-store-uri", local_uri(store)]
    found += ["--default-artifact-root", (store / "mlflow" / "artifacts").resolve().as_uri()]
    if not _is_loopback(host):
        found += ["--app-name", "basic-auth"]
    # Without job execution several processes fewer, of 245 MB each.
    return ["env", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false", "MLFLOW_DISABLE_TELEMETRY=true", *found]


def check(store: Path, port: int, host: str = LOOPBACK) -> None:
    """Raises BadInput where nothing can, or nobody without a password may, be served there."""
    if not _is_loopback(host):
        absent = [f"set {name} ({what})" for name, what in _AUTH.items() if not os.environ.get(name)]
        if importlib.util.find_spec("flask_wtf") is None:
            absent.append("pip install 'mlflow[auth]'")
        if absent:
            raise BadInput(f"--host {host}: others can reach it, so MLflow must ask for passwords: {'; '.join(absent)}")
    try:
        with socket.create_server((host, port)):
            pass
    except OSError as error:
        here = f": harness ui shows this store at {at} already" if (at := address(store)) else "; --port names another"
        raise BadInput(f"port {port} of {host}: {os.strerror(error.errno or 0).lower()}{here}") from None


@contextlib.contextmanager
def serving(store: Path, port: int, host: str = LOOPBACK) -> Iterator[Running]:
    """A server that answers, and is stopped with the block. Raises BadInput, and HarnessError where it ends before."""
    check(store, port, host)
    database = store / "mlflow" / "mlflow.db"
    try:
        open_database(database)
    except sqlite3.Error as error:
        raise HarnessError(f"{database}: {error}; move it away, the results folders are the record") from error
    output = store / "mlflow" / "ui.log"
    with open(output, "wb") as said:
        # A group of its own: Ctrl-C reaches this process alone, which then stops all of it.
        process = subprocess.Popen(command(store, port, host), stdout=said, stderr=said, start_new_session=True)
    base = f"http://{LOOPBACK if ipaddress.ip_address(socket.gethostbyname(host)).is_unspecified else host}:{port}"
    try:
        _wait(base, process, output)
        started = psutil.Process(process.pid).create_time()
        note = {"pid": process.pid, "started": started, "at": base}
        write_atomically(_note(store), json.dumps(note).encode())
        yield Running(base, process)
    finally:
        _stop(process)
        _note(store).unlink(missing_ok=True)


def address(store: Path) -> str | None:
    """Where `harness ui` shows the runs of this store now; None where it does not run."""
    try:
        note = json.loads(_note(store).read_text())
        return note["at"] if process_runs(note["pid"], note["started"]) else None
    except (OSError, ValueError, KeyError):
        return None


def link_lines(store: Path, base: str) -> Iterator[str]:
    """For every experiment the address of its runs and of each of its chart views."""
    from mlflow import MlflowClient

    found = MlflowClient(local_uri(store)).search_experiments(filter_string="tags.`harness.comparison` LIKE '%'")
    for experiment in sorted(found, key=lambda each: each.name):
        yield f"{experiment.name:22} {views.runs_link(base, experiment.experiment_id)}"
        names = views.written(experiment.tags)
        for name, link in views.links(base, experiment.experiment_id, names).items():
            yield f"  {name:20} {link}"
    if not found:
        yield "no runs yet: `harness run quickstart` makes some"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(socket.gethostbyname(host)).is_loopback
    except OSError:
        raise BadInput(f"--host {host!r}: this machine knows no such address") from None


def _note(store: Path) -> Path:
    return store / "mlflow" / "ui.json"


def _wait(base: str, process: subprocess.Popen[bytes], output: Path) -> None:
    began = said = time.monotonic()
    while (now := time.monotonic()) - began < _START_SECONDS:
        if process.poll() is not None:
            lines = [line for line in output.read_text(errors="replace").splitlines() if line.strip()]
            raise HarnessError(f"MLflow's server ended: {lines[-1] if lines else 'it said nothing'} (see {output})")
        try:
            with urllib.request.urlopen(f"{base}/health", timeout=2):
                return
        except urllib.error.HTTPError:  # it asks for a password
            return
        except OSError:
            time.sleep(0.2)
        if now - said > _SAY_EVERY:
            log.info("waiting for MLflow's server: %.0f s", now - began)
            said = now
    raise HarnessError(f"MLflow's server did not answer within {_START_SECONDS:.0f} s (see {output})")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Politely, then not."""
    try:
        whole = psutil.Process(process.pid)
        parts = [*whole.children(recursive=True), whole]
    except psutil.NoSuchProcess:
        return
    for part in parts:
        with contextlib.suppress(psutil.NoSuchProcess):
            part.terminate()
    for part in psutil.wait_procs(parts, timeout=5)[1]:
        with contextlib.suppress(psutil.NoSuchProcess):
            part.kill()
    process.wait()
