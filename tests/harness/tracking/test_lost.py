"""A server or store that is away costs one warning and no result."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.base.errors import HarnessError
from harness.tracking.later import log_results
from harness.tracking.server import serving

pytestmark = pytest.mark.slow
SAYS = "harness.tracking.connection"


def test_off_costs_no_import_and_does_nothing(tmp_path: Path) -> None:
    code = (
        "import sys, json; from pathlib import Path; sys.path.insert(0, {!r})\n"
        "import harness.tracking.runs, harness.tracking.later\n"
        "class E: name='x'; tracking='off'; model_dump=lambda self: {{}}\n"
        "class C: content_hash='c'\n"
        "with harness.tracking.runs.tracker(E(), Path({!r})).invocation(C(), 'h') as i:\n"
        "    with i.row('dense', 0, 'subject', ['']) as r: r.curve(Path('nowhere')); r.finish(None)\n"
        "    i.finish(None, Path('nowhere'))\n"
        "sys.exit('mlflow' in sys.modules)"
    ).format(str(Path.cwd()), str(tmp_path / "store"))
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert not (tmp_path / "store").exists()


def test_a_server_that_is_down_costs_one_warning_and_little_time(
    given, tmp_path: Path, free_port: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port}")
    began = time.monotonic()
    table = given.finished_folder(tmp_path / "results")
    with (
        caplog.at_level(logging.WARNING, SAYS),
        given.tracker().invocation(given.corpus, "cfg") as invocation,
    ):
        with invocation.row("dense", 0, "subject", [""]) as run:
            run.curve(given.curve(tmp_path / "c.jsonl", range(1, 5)))
            run.finish(given.result())
        invocation.finish(table, tmp_path / "results")
    assert time.monotonic() - began < 10
    (warning,) = [r.getMessage() for r in caplog.records if r.name == SAYS]
    assert "unreachable: results are on disk; send them later with: harness log RESULTS" in warning
    assert "\n" not in warning
    with pytest.raises(HarnessError, match="was not sent"):
        log_results(tmp_path / "results", given.store)


def test_a_broken_local_store_is_told_and_costs_no_result(given, caplog: pytest.LogCaptureFixture) -> None:
    (given.store / "mlflow" / "mlflow.db").write_bytes(b"not a database" * 100)
    with caplog.at_level(logging.WARNING, SAYS), given.tracker().invocation(given.corpus, "cfg"):
        pass
    assert "results are on disk" in caplog.text


def test_a_server_gets_everything_and_when_it_dies_the_run_goes_on(
    given, tmp_path: Path, free_port: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from mlflow import MlflowClient

    table = given.finished_folder(tmp_path / "results")
    curve = given.curve(given.store / "subject" / "abc" / "curve.jsonl", range(1, 9))
    with caplog.at_level(logging.WARNING, SAYS):
        with serving(given.store, free_port) as running:
            monkeypatch.setenv("MLFLOW_TRACKING_URI", running.base)
            held = given.tracker()
            with (
                held.invocation(given.corpus, "live") as invocation,
                invocation.row("dense", 0, "subject", [""]) as run,
            ):
                run.curve(curve)
                run.finish(given.result("dense"))
            client = MlflowClient(running.base)
            assert [r.info.status for r in given.runs(client=client)] == ["FINISHED", "FINISHED"]
            (child,) = given.runs("dense", client)
            assert len(client.get_metric_history(child.info.run_id, "train/loss")) == 8
            assert all(link.startswith(f"{running.base}/#/experiments/") for link in held.links().values())
            assert "subject curves" in held.links()
            second = given.tracker().invocation(given.corpus, "cfg")
            invocation = second.__enter__()
            lost = invocation.row("dense+topk[k=16]", 0, "dictionary")
            run = lost.__enter__()
        run.finish(given.result())
        lost.__exit__(None, None, None)
        invocation.finish(table, tmp_path / "results")
        second.__exit__(None, None, None)
    assert len([r for r in caplog.records if r.name == SAYS]) == 1
    assert "unreachable" in caplog.text
