from __future__ import annotations

import http.server
import re
import sqlite3
import threading
from pathlib import Path

import pytest

from harness.base.files import ROOT
from harness.run import doctor
from harness.run.doctor import OPS, Check, checks
from harness.store.stages import Stage, Store

KERNELS = ROOT / "kernels"


def named(found: list[Check], name: str) -> Check:
    return next(check for check in found if check.name == name)


@pytest.fixture(autouse=True)
def _no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("HARNESS_KERNELS", raising=False)


def test_here_nothing_is_broken_and_the_store_is_weighed(tmp_path: Path) -> None:
    Store(tmp_path).run(Stage("corpus", "", {}), lambda work: (work / "x").write_bytes(bytes(5000)) and None)
    found = checks(tmp_path)
    assert [check for check in found if not check.ok and check.name not in ("disk", "threads")] == []
    assert re.search(r"1 stages, 5\.\d KiB", named(found, "store").text)
    assert "a kernel of it ran" in named(found, "numba").text + named(found, "triton").text
    assert {"corpus installed", "corpus chess", "corpus files"} <= {check.name for check in found}


def test_the_ops_are_those_that_the_kernels_dispatch() -> None:
    dispatched = set()
    for path in KERNELS.glob("*/__init__.py"):
        dispatched |= set(re.findall(r'_?choose\(\s*"(\w+)"', path.read_text()))
    assert dispatched == set(OPS)


def test_a_store_that_cannot_be_written_is_broken(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (store,) = doctor._store(tmp_path / "file" / "store")
    assert not store.ok
    assert "choose another with HARNESS_STORE" in store.text


def test_a_forced_implementation_that_is_none_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_KERNELS", "fast")
    check = named(list(doctor._kernels()), "kernels")
    assert not check.ok
    assert "use one of reference, cpu, gpu" in check.text


def test_a_package_that_is_absent_or_too_old_is_broken_and_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(doctor, "_version", {"torch": "1.0"}.get)
    found = list(doctor._packages())
    assert named(found, "torch").text.startswith("1.0 is not <2.14,>=2.11: pip install 'torch")
    assert named(found, "numba").text == "not installed: pip install 'numba'"
    absent = next(iter(doctor._corpora()))
    assert not absent.ok
    assert absent.text.startswith("pip install ")


def test_a_tracking_server_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Healthy(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/health" else 404)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Healthy) as server:
        uri = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        (check,) = doctor._tracking(tmp_path)
        assert check == Check("tracking", True, f"{uri} answers")
        server.shutdown()
    (check,) = doctor._tracking(tmp_path)
    assert not check.ok
    assert "does not answer" in check.text


def test_a_local_tracking_store_is_counted_and_a_broken_one_named(tmp_path: Path) -> None:
    database = tmp_path / "mlflow" / "mlflow.db"
    assert next(doctor._tracking(tmp_path)).ok
    database.parent.mkdir()
    with sqlite3.connect(database) as connection:
        connection.execute("create table runs (id text)")
    connection.close()
    assert "0 runs" in next(doctor._tracking(tmp_path)).text
    database.write_bytes(b"not a database" * 100)
    assert "file is not a database" in next(doctor._tracking(tmp_path)).text
