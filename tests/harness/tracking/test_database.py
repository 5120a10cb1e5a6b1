"""Where runs are kept: made whole, by one of many processes, with artifacts beside it, wherever it is moved."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.base.files import ROOT
from harness.tracking.database import database_of
from harness.tracking.runs import Tracker

MAKE = "from pathlib import Path; from harness.tracking.runs import Tracker; t = Tracker('quick', {{}}, Path({!r})); "


def start(code: str, **environment: str) -> subprocess.Popen[str]:
    known = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=known)


@pytest.mark.slow
def test_two_processes_can_make_the_store_at_once(tmp_path: Path) -> None:
    started = [start(MAKE.format(str(tmp_path)) + "exit(t.client is None)") for _ in range(2)]
    for process in started:
        process.communicate(timeout=120)
    assert [process.returncode for process in started] == [0, 0]


@pytest.mark.slow
def test_a_kill_while_the_store_is_made_leaves_none_and_the_next_run_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    made = start(MAKE.format(str(tmp_path)))
    while not list((tmp_path / "mlflow").glob("*/mlflow.db")):  # it is being made
        assert made.poll() is None
        time.sleep(0.01)
    made.kill()
    made.communicate()
    assert not (tmp_path / "mlflow" / "mlflow.db").exists()
    assert Tracker("quick", {}, tmp_path).client is not None
    assert sorted(path.name for path in (tmp_path / "mlflow").iterdir()) == ["mlflow.db", "mlflow.db.lock"]


@pytest.mark.parametrize(
    ("uri", "file"),
    [
        ("sqlite:////a/b.db", "/a/b.db"),
        ("sqlite:////a/b.db?timeout=5", "/a/b.db"),
        ("sqlite+pysqlite:////a/b.db", "/a/b.db"),
        ("sqlite:///:memory:", None),
        ("sqlite://", None),
        ("http://127.0.0.1:5000", None),
        ("postgresql:///runs", None),
    ],
)
def test_the_file_of_a_tracking_uri(uri: str, file: str | None) -> None:
    assert database_of(uri) == (None if file is None else Path(file))


@pytest.mark.slow
def test_a_database_of_ones_own_is_made_whole_by_the_first_of_several_and_keeps_its_artifacts_beside_it(
    tmp_path: Path,
) -> None:
    uri = f"sqlite:///{tmp_path / 'mine' / 'runs.db'}"
    (tmp_path / "elsewhere").mkdir()
    code = f"import os; os.chdir({str(tmp_path / 'elsewhere')!r}); " + MAKE.format(str(tmp_path / "store"))
    code += "print(t.client.get_experiment(t.experiment_id).artifact_location)"
    starts = [start(code, MLFLOW_TRACKING_URI=uri) for _ in range(3)]
    said = {process.communicate(timeout=120)[0].strip() for process in starts}
    assert [process.returncode for process in starts] == [0, 0, 0]
    assert said == {(tmp_path / "mine" / "artifacts" / "quick").as_uri()}
    assert not list((tmp_path / "elsewhere").iterdir())
    assert not (tmp_path / "store" / "mlflow" / "mlflow.db").exists()


def files(given) -> set[str]:
    (child,) = given.runs("dense seed")
    return {file.path for file in given.client().list_artifacts(child.info.run_id)}


@pytest.mark.slow
@pytest.mark.parametrize("how", ["moved", "copied"])
def test_artifacts_are_found_where_the_store_was_taken(given, tmp_path: Path, how: str) -> None:
    with given.tracker().invocation(given.corpus, "cfg") as invocation, invocation.row("dense", 0, "subject") as run:
        run.finish(given.result("dense"))
    there = type(given)(tmp_path / "a new place")
    (shutil.move if how == "moved" else shutil.copytree)(given.store, there.store)
    assert there.tracker().client is not None
    assert files(there) == {"figures.json"}
    (child,) = there.runs("dense seed")
    place = (there.store / "mlflow" / "artifacts" / "quick").as_uri()
    assert child.info.artifact_uri == f"{place}/{child.info.run_id}/artifacts"
    with there.tracker().invocation(there.corpus, "cfg") as invocation, invocation.row("peer", 0, "subject") as run:
        run.finish(there.result("peer"))
    (made,) = there.runs("peer seed")
    assert made.info.artifact_uri.startswith(place)


@pytest.mark.slow
def test_artifacts_that_stayed_where_they_were_are_still_found(given, tmp_path: Path) -> None:
    with given.tracker().invocation(given.corpus, "cfg") as invocation, invocation.row("dense", 0, "subject") as run:
        run.finish(given.result("dense"))
    there = type(given)(tmp_path / "a new place")
    (there.store / "mlflow").mkdir(parents=True)
    shutil.copy(given.store / "mlflow" / "mlflow.db", there.store / "mlflow")  # the database alone
    assert there.tracker().client is not None
    assert files(there) == {"figures.json"}
