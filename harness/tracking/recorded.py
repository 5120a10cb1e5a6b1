"""A run of MLflow that this process has open: begun, continued, and ended as its block ends."""

from __future__ import annotations

import contextlib
import getpass
import json
import traceback
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from harness.base.errors import Interrupted
from harness.tracking.connection import PROCESS, Connection, this_process
from harness.tracking.curves import flat

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

PARENT, NOTE, COLOUR = "mlflow.parentRunId", "mlflow.note.content", "mlflow.runColor"
_LONGEST_TAG = 8000  # MLflow cuts longer ones silently


class Recorded:
    """run_id: None where tracking is off."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.run_id: str | None = None

    def _start(self, name: str, tags: Mapping[str, str], params: Mapping[str, Any]) -> None:
        source = {
            "mlflow.source.name": f"harness run {self.connection.name}",
            "mlflow.source.type": "LOCAL",
            "mlflow.user": _user(),
        }

        def start(client: MlflowClient) -> str:
            resumed = self._resumable(client)
            if resumed is None:
                process = {PROCESS: json.dumps(this_process())}
                created = client.create_run(
                    self.connection.experiment_id, tags={**source, **tags, **process}, run_name=name
                )
                _log_params(client, created.info.run_id, flat(params))
                return created.info.run_id
            process = {PROCESS: json.dumps({**this_process(), "resumed": True})}
            for key, value in {**source, **tags, **process}.items():
                client.set_tag(resumed.info.run_id, key, value)
            if "traceback" in resumed.data.tags:
                client.delete_tag(resumed.info.run_id, "traceback")
            client.update_run(resumed.info.run_id, status="RUNNING")
            return resumed.info.run_id

        self.run_id = self.connection.attempt(start)

    def _resumable(self, client: MlflowClient) -> Run | None:
        return None

    def tag(self, tags: Mapping[str, str | None]) -> None:
        """None: no tag."""

        def send(client: MlflowClient) -> None:
            for key, value in tags.items():
                if value is not None:
                    client.set_tag(self.run_id or "", key, value[:_LONGEST_TAG])

        if self.run_id is not None:
            self.connection.attempt(send)

    def artifact(self, content: Mapping[str, Any], name: str) -> None:
        """As JSON."""
        if self.run_id is not None:
            run_id, text = self.run_id, json.dumps(content, indent=1, default=str, ensure_ascii=False)
            self.connection.attempt(lambda client: client.log_text(run_id, text, name))

    def _stop(self, status: str, error: BaseException | None = None) -> None:
        def stop(client: MlflowClient) -> None:
            assert self.run_id is not None
            if error is not None:
                text = "".join(traceback.format_exception(error))
                client.set_tag(self.run_id, "traceback", text[-4000:])
                client.log_text(self.run_id, text, "traceback.txt")
            client.set_terminated(self.run_id, status)

        if self.run_id is not None:
            self.connection.attempt(stop)

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


def _log_params(client: MlflowClient, run_id: str, params: dict[str, str]) -> None:
    from mlflow.entities import Param

    items = [Param(key, value) for key, value in params.items()]
    for start in range(0, len(items), 100):
        client.log_batch(run_id, params=items[start : start + 100])


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "unknown"
