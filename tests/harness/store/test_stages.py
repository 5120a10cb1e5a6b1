import fcntl
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.base.errors import HarnessError
from harness.store.stages import Stage, Store


def a_stage(**config: object) -> Stage:
    return Stage(kind="test", label="a test stage", config=config, modules=("harness.base.errors",))


def write_answer(work: Path) -> None:
    (work / "answer.txt").write_text("42")


def test_a_stored_stage_is_not_computed_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    folder = store.run(a_stage(x=1), write_answer)
    assert (folder / "answer.txt").read_text() == "42"

    def fail(_work: Path) -> None:
        raise AssertionError("computed again")

    assert Store(tmp_path).run(a_stage(x=1), fail) == folder


def test_config_upstream_and_source_each_change_the_key() -> None:
    base = a_stage(x=1)
    assert a_stage(x=2).key != base.key
    assert Stage("test", "", {"x": 1}, upstream=("other",), modules=("harness.base.errors",)).key != base.key
    assert Stage("test", "", {"x": 1}, modules=("harness.tables.measurement",)).key != base.key
    assert a_stage(x=1).key == base.key


def test_a_failed_stage_leaves_nothing_finished_and_continues_in_its_work_folder(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def breaks(work: Path) -> None:
        (work / "half.txt").write_text("half")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        store.run(a_stage(), breaks)
    assert store.finished(a_stage()) is None

    def goes_on(work: Path) -> None:
        assert (work / "half.txt").read_text() == "half"
        write_answer(work)

    assert (store.run(a_stage(), goes_on) / "answer.txt").exists()


def test_checkpoints_do_not_become_part_of_the_stage(tmp_path: Path) -> None:
    def produce(work: Path) -> None:
        (work / "checkpoint").mkdir()
        (work / "checkpoint" / "state").write_text("x")
        write_answer(work)

    folder = Store(tmp_path).run(a_stage(), produce)
    assert sorted(path.name for path in folder.iterdir()) == ["answer.txt", "manifest.json"]


@pytest.mark.parametrize("damage", ["change", "truncate", "remove", "manifest"])
def test_a_damaged_stage_is_computed_again_and_said_so(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Store(tmp_path).run(a_stage(), write_answer)
    target = folder / ("manifest.json" if damage == "manifest" else "answer.txt")
    if damage == "remove":
        target.unlink()
    else:
        target.write_text({"change": "43", "truncate": "", "manifest": "{"}[damage])
    store = Store(tmp_path)
    assert store.finished(a_stage()) is None
    assert "computing it again" in caplog.text
    assert (store.run(a_stage(), write_answer) / "answer.txt").read_text() == "42"


def test_fresh_computes_each_stage_once_more_and_replaces_it(tmp_path: Path) -> None:
    Store(tmp_path).run(a_stage(), write_answer)
    store = Store(tmp_path, fresh=True)
    calls = []

    def produce(work: Path) -> None:
        calls.append(1)
        (work / "answer.txt").write_text("new")

    for _ in range(2):
        folder = store.run(a_stage(), produce)
    assert len(calls) == 1
    assert (folder / "answer.txt").read_text() == "new"


def test_stages_computed_together_become_visible_each(tmp_path: Path) -> None:
    one, two = a_stage(n=1), a_stage(n=2)
    store = Store(tmp_path)
    store.run(one, write_answer)

    def produce(work: dict[str, Path]) -> None:
        assert set(work) == {two.key}
        write_answer(work[two.key])

    folders = store.run_together([one, two], produce)
    assert all((folder / "answer.txt").exists() for folder in folders)


def _compute_slowly(root: Path, log: Path) -> None:
    def produce(work: Path) -> None:
        with open(log, "a") as file:
            file.write("computed\n")
        time.sleep(0.5)
        write_answer(work)

    Store(root).run(a_stage(), produce)


def test_two_processes_compute_a_stage_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    log = tmp_path / "log"
    processes = [context.Process(target=_compute_slowly, args=(tmp_path / "store", log)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(20)
        assert process.exitcode == 0
    assert log.read_text() == "computed\n"


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    process = context.Process(target=_compute_slowly, args=(tmp_path, tmp_path / "log"))
    process.start()
    while not (tmp_path / "log").exists():
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    stage = a_stage()
    with open(tmp_path / "locks" / f"{stage.kind}-{stage.key}") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert Store(tmp_path).run(stage, write_answer).exists()


def test_a_full_disk_is_said_in_one_line(tmp_path: Path) -> None:
    import errno

    def full(_work: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(HarnessError, match="disk of the store is full"):
        Store(tmp_path).run(a_stage(), full)


def test_the_manifest_names_what_determined_the_stage(tmp_path: Path) -> None:
    stage = a_stage(x=1)
    manifest = json.loads((Store(tmp_path).run(stage, write_answer) / "manifest.json").read_text())
    assert manifest["config"] == {"x": 1}
    assert manifest["key"] == stage.key
    assert manifest["files"]["answer.txt"]["bytes"] == 2


def test_two_runs_with_one_process_id_do_not_wait_for_each_other(tmp_path: Path) -> None:
    """Two containers that share a store are both process 1; here one process stands for both."""
    code = (
        "import sys; from pathlib import Path; from harness.store.stages import Store\n"
        "root = Path(sys.argv[1])\n"
        "with Store(root).in_use([]), Store(root).in_use([]):\n"
        "    assert len(list((root / 'locks').glob('run-*'))) == 2\n"
        "assert not list((root / 'locks').glob('run-*'))\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=60)
