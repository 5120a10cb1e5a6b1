"""The connection to MLflow that can be lost at any moment and takes nothing with it.

Every file is written before it is sent; the first error is said in one line and tracking is off for the rest of the
invocation; `harness log RESULTS` sends it later. mlflow is imported inside functions (1.5 s), so that `tracking: off`
never pays for it.
"""

from __future__ import annotations

import json
import logging
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import psutil

from harness.base.errors import HarnessError
from harness.tracking.database import connect, local_uri, process_runs

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)
T = TypeVar("T")

PROCESS = "harness.process"  # one tag of a run, JSON: which process has it open


class Connection:
    """`client` is None once tracking is off."""

    def __init__(self, name: str, store: Path, *, enabled: bool = True) -> None:
        self.name, self.store = name, store
        self.uri = os.environ.get("MLFLOW_TRACKING_URI") or local_uri(store)
        self.client: MlflowClient | None = None
        self.experiment_id = ""
        if enabled:
            try:
                self.client, self.experiment_id = connect(self.uri, store, name)
            except Exception as error:  # whatever MLflow or its store raises, a run must go on
                self.turn_off(error)
            self.attempt(_reap)

    @property
    def local(self) -> bool:
        """Whether runs are kept in the store, where `harness ui` finds them."""
        return self.uri == local_uri(self.store)

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


def this_process() -> dict[str, str | float]:
    process = psutil.Process()
    return {"host": platform.node(), "pid": process.pid, "started": process.create_time()}


def _reap(client: MlflowClient) -> None:
    """A process that was killed left its runs RUNNING for ever: mark them."""
    experiments = client.search_experiments(filter_string="tags.`harness.comparison` LIKE '%'")
    for run in client.search_runs([e.experiment_id for e in experiments], "attributes.status = 'RUNNING'"):
        process = json.loads(run.data.tags.get(PROCESS, "{}"))
        if process.get("host") != platform.node() or process_runs(process["pid"], process["started"]):
            continue
        client.set_tag(run.info.run_id, PROCESS, json.dumps({**process, "gone": True}))
        client.set_terminated(run.info.run_id, "KILLED")
        log.info("tracking: run %s was killed earlier, marked so", run.info.run_name)
