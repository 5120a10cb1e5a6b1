from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.base.errors import BadInput, HarnessError
from harness.base.files import locked
from harness.store.clean import Cleaner, describe, size
from harness.store.stages import Stage, Store


def a_stage(kind: str, n: int, upstream: tuple[str, ...] = ()) -> Stage:
    return Stage(kind, f"{kind} {n}", {"n": n}, upstream, ("harness.base.errors",))


def fill(work: Path) -> None:
    (work / "data").write_bytes(bytes(1000))


def results_folder(folder: Path, *keys: str) -> Path:
    folder.mkdir(parents=True)
    rows = [{"provenance": {"stages": {f"metric/{i}": key}}} for i, key in enumerate(keys)]
    (folder / "table.json").write_text(json.dumps({"comparison": "x", "schema_version": 99, "rows": rows}))
    return folder


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Store, Stage, Stage, Stage]:
    """A corpus, a metric made from it that results/kept needs, and a metric that nothing needs."""
    monkeypatch.chdir(tmp_path)
    store = Store(tmp_path / "store")
    corpus = a_stage("corpus", 0)
    needed, other = a_stage("metric", 1, (corpus.key,)), a_stage("metric", 2, (corpus.key,))
    for stage in (corpus, needed, other):
        store.run(stage, fill)
    results_folder(tmp_path / "results" / "kept", needed.key)
    return store, corpus, needed, other


def paths(cleaner: Cleaner) -> list[str]:
    return [str(each.path.relative_to(cleaner.root)) for each in cleaner.find().leftovers]


def test_what_results_need_stays_with_all_it_was_made_from_and_the_rest_goes(stored) -> None:
    store, corpus, needed, other = stored
    with Cleaner(store.root, []) as cleaner:
        assert paths(cleaner) == [other.folder]
        found = cleaner.find()
        assert cleaner.remove(found) == found.leftovers[0].bytes > 1000
    left = Store(store.root)
    assert left.finished(corpus)
    assert left.finished(needed)
    assert not left.finished(other)
    assert [path.name for path in (store.root / "locks").iterdir()] == ["clean"]
    assert list((store.root / "work").iterdir()) == []


def test_a_results_folder_elsewhere_can_be_named(stored, tmp_path: Path) -> None:
    store, _, _, other = stored
    with Cleaner(store.root, [results_folder(tmp_path / "far" / "away", other.key)]) as cleaner:
        assert paths(cleaner) == []
        assert describe(cleaner.find())[-1] == "nothing to free"


def test_what_a_process_has_locked_stays(stored) -> None:
    store, _, _, other = stored
    with locked(store.root / "locks" / f"metric-{other.key}"), Cleaner(store.root, []) as cleaner:
        assert paths(cleaner) == []
    with Cleaner(store.root, []) as cleaner:
        found = cleaner.find()
        with locked(store.root / "locks" / f"metric-{other.key}"):  # between looking and removing
            assert cleaner.remove(found) == 0
    assert store.finished(other)


def test_all_that_a_live_run_plans_stays_finished_or_not(stored) -> None:
    store, _, _, other = stored
    unfinished = a_stage("subject", 3)
    (store.root / "work" / f"subject-{unfinished.key}").mkdir()
    with store.in_use([other, unfinished]), Cleaner(store.root, []) as cleaner:
        assert paths(cleaner) == []
        assert cleaner.find().running == 1
    with Cleaner(store.root, []) as cleaner:
        assert sorted(paths(cleaner)) == sorted([other.folder, f"work/subject-{unfinished.key}"])


def test_what_kills_left_goes(stored) -> None:
    store, corpus, _, other = stored
    for name in (f"replaced-{corpus.key}-77", f"subject-{other.key}-fresh"):
        (store.root / "work" / name).mkdir()
    (store.root / "locks" / "run-77").write_text(other.key)
    with Cleaner(store.root, []) as cleaner:
        cleaner.remove(cleaner.find())
    assert list((store.root / "work").iterdir()) == []
    assert not (store.root / "locks" / "run-77").exists()


def test_nothing_but_stages_is_touched(stored) -> None:
    store, _, _, _ = stored
    for name in ("mlflow/mlflow.db", "mine/notes.txt"):
        (store.root / name).parent.mkdir()
        (store.root / name).write_text("x")
    with Cleaner(store.root, []) as cleaner:
        cleaner.remove(cleaner.find())
    assert (store.root / "mlflow" / "mlflow.db").exists()
    assert (store.root / "mine" / "notes.txt").exists()


def test_results_that_cannot_be_read_stop_it_and_other_tables_do_not(stored, tmp_path: Path) -> None:
    store, _, _, _ = stored
    (tmp_path / "results" / "faults").mkdir()
    (tmp_path / "results" / "faults" / "table.json").write_text('{"faults": []}')
    with Cleaner(store.root, []) as cleaner:
        assert [folder.name for folder in cleaner.find().results if folder.parent.parent == tmp_path] == ["kept"]
    (tmp_path / "results" / "kept" / "table.json").write_text("{")
    with pytest.raises(HarnessError, match="cannot tell which stages"), Cleaner(store.root, []) as cleaner:
        cleaner.find()


def test_only_one_cleans_at_a_time(stored) -> None:
    store, _, _, _ = stored
    with Cleaner(store.root, []), pytest.raises(HarnessError, match="another harness clean"), Cleaner(store.root, []):
        pass


def test_bad_places_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no store at"):
        Cleaner(tmp_path / "nowhere", [])
    with pytest.raises(BadInput, match="has no table"):
        Cleaner(tmp_path, [tmp_path])


@pytest.mark.parametrize(("n", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 * 2**30, "5.0 GiB")])
def test_sizes_are_for_people(n: int, text: str) -> None:
    assert size(n) == text


def test_the_command_says_how_much_and_removes_only_when_told(stored) -> None:
    store, _, _, other = stored

    def clean(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "HARNESS_STORE": str(store.root), "PYTHONPATH": str(Path(__file__).parents[3])}
        command = [sys.executable, "-m", "harness.cli", "clean", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL)

    asked = clean()
    assert asked.returncode == 2
    assert "1 metric" in asked.stdout
    assert "not needed: 1.2 KiB" in asked.stdout
    assert asked.stderr == "error: nothing was removed: there is no terminal to ask on; say --yes\n"
    assert store.finished(other)
    assert clean("--yes").stdout.splitlines()[-1] == "1.2 KiB freed"
    assert not (store.root / other.folder).exists()
