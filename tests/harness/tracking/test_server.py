"""`harness ui`: it answers, says where everything is, stops whole, and serves nobody without a password but this
machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from harness.base.errors import BadInput, HarnessError
from harness.base.files import ROOT
from harness.tracking import server, views


def test_it_listens_on_this_machine_with_one_worker(tmp_path: Path) -> None:
    said = " ".join(server.command(tmp_path, 5000))
    assert "--host 127.0.0.1 --port 5000 --workers 1" in said
    assert "basic-auth" not in said


def test_whoever_others_can_reach_asks_for_passwords(tmp_path: Path) -> None:
    assert "--app-name basic-auth" in " ".join(server.command(tmp_path, 5000, "0.0.0.0"))


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1"])
def test_without_them_it_refuses_and_says_what_to_set(
    tmp_path: Path, free_port: int, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in server._AUTH:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(BadInput) as refused:
        server.check(tmp_path, free_port, host)
    said = str(refused.value)
    assert "\n" not in said
    assert "MLFLOW_AUTH_CONFIG_PATH" in said
    assert "MLFLOW_FLASK_SERVER_SECRET_KEY" in said
    assert not (tmp_path / "mlflow").exists()


def test_an_unknown_host_is_said_in_one_line(tmp_path: Path, free_port: int) -> None:
    with pytest.raises(BadInput, match="knows no such address"):
        server.check(tmp_path, free_port, "no such host.invalid")


def test_a_port_that_is_taken_is_said_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BadInput, match=f"port {port} of 127.0.0.1: address already in use; --port names another"):
            server.check(tmp_path, port)
    server.check(tmp_path, port)  # free again, and tried without keeping it


def test_a_server_that_ends_at_once_says_why(given, free_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "command", lambda *_: [sys.executable, "-c", "print('out of luck'); exit(3)"])
    with pytest.raises(HarnessError, match="ended: out of luck"), server.serving(given.store, free_port):
        pass


@pytest.mark.slow
def test_it_prints_every_view_once_it_answers_and_ctrl_c_stops_all_of_it(given, tmp_path: Path, free_port: int) -> None:
    with given.tracker().invocation(given.corpus, "cfg") as invocation:
        for seed in (0, 1):
            with invocation.row("dense", seed, "subject") as run:
                run.finish(given.result("dense", seed))
        invocation.finish(given.finished_folder(tmp_path / "out"), tmp_path / "out")
    environment = {**os.environ, "HARNESS_STORE": str(given.store), "PYTHONPATH": str(ROOT)}
    ui = subprocess.Popen(
        [sys.executable, "-m", "harness.cli", "ui", "--port", str(free_port)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment,
    )  # fmt: skip
    assert ui.stdout is not None
    said = []
    for line in ui.stdout:
        said.append(line.strip())
        if "stop with Ctrl-C" in line:
            break
    base = f"http://127.0.0.1:{free_port}"
    experiment = given.runs()[0].info.experiment_id
    wanted = views.links(base, experiment, ["headline", "loss against L0"]).values()
    assert {line.split()[-1] for line in said} >= {views.runs_link(base, experiment), *wanted}
    assert server.address(given.store) == base
    assert given.tracker().links() == views.links(base, experiment, ["headline", "loss against L0"])
    with pytest.raises(BadInput, match=f"harness ui shows this store at {base} already"):
        server.check(given.store, free_port)
    started = psutil.Process(ui.pid).children(recursive=True)
    assert 0 < len(started) <= 3
    ui.send_signal(signal.SIGINT)
    ui.communicate(timeout=60)
    assert ui.returncode == 0
    assert not [process for process in started if process.is_running()]
    assert server.address(given.store) is None
