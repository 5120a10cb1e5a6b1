"""Runs of processes that were killed: marked, and continued without a step sent twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from harness.tracking.connection import PROCESS

pytestmark = pytest.mark.slow

CHILD = """
import sys, time, types
from pathlib import Path
from harness.tracking.runs import Tracker
corpus = types.SimpleNamespace(content_hash="c" * 64)
with Tracker("quick", {{}}, Path({store!r})).invocation(corpus, "cfg") as invocation:
    with invocation.row("dense", 0, "subject", [""]) as run:
        run.curve(Path({curve!r}))
        run._send_curves()
        print("ready", flush=True)
        time.sleep(60)
"""


def test_a_killed_run_is_reaped_and_continued_strictly_after_its_last_step(given, tmp_path: Path) -> None:
    curve = given.curve(tmp_path / "work" / "curve.jsonl", range(1, 31))
    code = CHILD.format(store=str(given.store), curve=str(curve))
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=Path.cwd())
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == "ready\n"
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
    assert {r.info.status for r in given.runs()} == {"RUNNING"}
    given.curve(curve, range(1, 21))  # training went back to its checkpoint at 20
    stored = tmp_path / "stored" / "curve.jsonl"
    with given.tracker().invocation(given.corpus, "cfg") as invocation:
        assert {r.info.status for r in given.runs("quick ")} == {"KILLED", "RUNNING"}
        with invocation.row("dense", 0, "subject", [""]) as run:
            run.curve(curve)
            run._send_curves()
            given.curve(curve, range(1, 41))
            run._send_curves()
            given.curve(stored, range(1, 51))
            run.curve(stored)  # the work folder became a stage
            run.finish(given.result("dense"))
    (again,) = given.runs("dense seed")  # the same run, not a second one
    assert again.info.status == "FINISHED"
    process = json.loads(again.data.tags[PROCESS])
    assert (process["pid"], process["resumed"], "gone" in process) == (os.getpid(), True, False)
    assert again.data.tags["mlflow.parentRunId"] == given.runs("quick ")[1].info.run_id
    history = given.client().get_metric_history(again.info.run_id, "train/loss")
    assert [m.step for m in history] == list(range(1, 51))


def test_runs_of_living_processes_and_of_other_hosts_are_not_reaped(given) -> None:
    held = given.tracker()
    process = psutil.Process()
    here = {"host": os.uname().nodename, "pid": process.pid, "started": process.create_time()}
    with held.invocation(given.corpus, "cfg"):
        for owner in ({**here, "host": "elsewhere", "pid": 999999999}, here):
            run = held.client.create_run(held.experiment_id, tags={PROCESS: json.dumps(owner)}, run_name="other")
        held.client.create_run(held.experiment_id, run_name="made by hand")
        given.tracker()
        assert {r.info.status for r in given.runs()} == {"RUNNING"}
        again = {**here, "started": 1.0}  # the process id was used again
        held.client.set_tag(run.info.run_id, PROCESS, json.dumps(again))
        given.tracker()
        assert given.client().get_run(run.info.run_id).info.status == "KILLED"
