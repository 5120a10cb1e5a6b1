"""`harness verify` and `harness diff` as a person calls them: on a real run, on folders that are older, on mistakes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.base.files import ROOT
from harness.metrics.metric import METRICS
from harness.run.stale import reasons, version_of
from harness.tables import folder

from .conftest import Ran, harness

pytestmark = pytest.mark.slow
Call = Callable[..., tuple[int, str]]


def changed(results: Path, copy: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of a results folder with another table.json."""
    shutil.copytree(results, copy)
    table = json.loads((copy / "table.json").read_text())
    change(table)
    (copy / "table.json").write_text(json.dumps(table))
    return copy


def worse(table: dict[str, Any]) -> None:
    """The dense model's loss, by more than its interval is wide."""
    row = next(row for row in table["rows"] if row["system"] == "dense")
    for end in ("value", "low", "high"):
        row["metrics"]["loss/bits_per_byte"][end] += 1.0


def test_what_was_just_run_is_verified_to_the_last_digit(ran: Ran) -> None:
    before = {path: path.read_bytes() for path in ran.out.iterdir() if path.is_file()}
    done = harness("verify", str(ran.out), store=ran.store, threads=2)  # threads are the table's, not this process's
    assert "stages were stored; nothing was computed again" in done.stdout
    assert "compared to the last digit" in done.stdout
    assert "figures in 6 rows agree to the last digit; 9 timings are never compared" in done.stdout
    assert {path: path.read_bytes() for path in ran.out.iterdir() if path.is_file()} == before


def test_a_figure_that_is_not_what_the_experiment_gives_ends_with_1(ran: Ran, in_process: Call, tmp_path: Path) -> None:
    wrong = changed(ran.out, tmp_path / "wrong", worse)
    code, said = in_process("verify", str(wrong), store=ran.store)
    assert code == 1
    assert "dense: 1 of 34 figures differ" in said
    assert "total: 1 of 129 figures differ, in 1 of 6 rows, 1 of them by more than the intervals allow" in said


def test_the_experiment_is_that_of_the_folder(ran: Ran, in_process: Call, tmp_path: Path) -> None:
    other = changed(ran.out, tmp_path / "other", lambda table: None)
    experiment = yaml.safe_load((other / "experiment.yaml").read_text())
    experiment["references"] = ["unigram"]
    (other / "experiment.yaml").write_text(yaml.safe_dump(experiment, sort_keys=False))
    code, said = in_process("verify", str(other), store=ran.store)
    assert code == 1
    assert "kneser_ney: the whole row is gone" in said


def test_the_committed_smoke_is_what_this_tree_gives(ran: Ran) -> None:
    """To the digit on the machine that made it, within the intervals elsewhere. Other packages bring other text, of
    which nothing follows."""
    committed = ROOT / "results" / "smoke"
    one, two = (folder.read(where).provenance for where in (committed, ran.out))
    if one.corpus_hash != two.corpus_hash and one.packages != two.packages:
        pytest.skip("other versions of the packages that the text is taken from: the figures are of another text")
    done = harness("verify", str(committed), store=ran.store, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_two_folders_are_compared_without_running(ran: Ran, in_process: Call, tmp_path: Path) -> None:
    wrong = changed(ran.out, tmp_path / "wrong", worse)
    code, said = in_process("diff", str(ran.out), str(ran.out), store=tmp_path / "none")
    assert code == 0
    assert "agree to the last digit" in said
    code, said = in_process("diff", str(ran.out), str(wrong), store=tmp_path / "none")
    assert code == 1
    assert said.startswith(f"A: {ran.out}\nB: {wrong}\n")
    assert "loss/bits_per_byte" in said
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["verify"], "verify needs a results folder"),
        (["verify", "results/smok"], "no results folder results/smok; there is:"),
        (["verify", "results/faults"], "results/faults has no experiment.yaml"),
        (["verify", "results", "--stale", "--fresh"], "--stale runs nothing"),
        (["verify", "tests", "--stale"], "tests holds no results folder"),
        (["diff", "results/smok", "results/smoke"], "no results folder results/smok"),
    ],
)
def test_mistakes_end_with_2_and_one_line(
    arguments: list[str], says: str, in_process: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    code, said = in_process(*arguments, store=tmp_path)
    assert code == 2
    assert says in said
    assert "Traceback" not in said


def test_a_folder_that_this_tree_made_is_not_stale(ran: Ran, in_process: Call, tmp_path: Path) -> None:
    fresh = tmp_path / "smoke"  # the name of its experiment
    shutil.copytree(ran.out, fresh)
    assert reasons(fresh) == []
    code, said = in_process("verify", "--stale", str(tmp_path), store=tmp_path)
    assert code == 0
    assert "total: 0 of 1 folders are older than the tree" in said


def test_a_folder_of_another_metric_version_is_stale(ran: Ran, in_process: Call, tmp_path: Path) -> None:
    def older(table: dict[str, Any]) -> None:
        for row in table["rows"]:
            for name, figure in row["metrics"].items():
                if name.split("/")[0] in ("sparsity", "dictionary"):
                    figure["version"] -= 1

    changed(ran.out, tmp_path / "old", older)
    code, said = in_process("verify", "--stale", str(tmp_path / "old"), store=tmp_path)
    sparsity, dictionary = version_of("sparsity/l0"), version_of("dictionary/width")
    assert sparsity
    assert dictionary
    assert code == 1
    assert f"sparsity {sparsity - 1} → {sparsity}, dictionary {dictionary - 1} → {dictionary}" in said
    assert "total: 1 of 1 folders are older than the tree" in said


def test_a_folder_whose_experiment_file_means_something_else_is_stale(ran: Ran, tmp_path: Path) -> None:
    out = tmp_path / "smoke"
    shutil.copytree(ran.out, out)
    experiment = yaml.safe_load((out / "experiment.yaml").read_text())

    def with_(**changes: Any) -> list[str]:
        (out / "experiment.yaml").write_text(yaml.safe_dump({**experiment, **changes}, sort_keys=False))
        return reasons(out)

    assert with_(seeds=[0, 1], systems={**experiment["systems"], "peer": {"k": 2}}) != []
    (said,) = with_(seeds=[0, 1])
    assert said == "other settings than harness/experiment/smoke.yaml: seeds [0, 1] → [0]"
    # A default that is written out, the order of rows and what no figure comes from mean nothing.
    options = METRICS["sparsity"].options().model_dump(mode="json")
    rows = dict(reversed(experiment["systems"].items()))
    assert with_(systems=rows, metrics={**experiment["metrics"], "sparsity": options}, tracking="off") == []
    (said,) = with_(learning_rate_trials=3)
    assert said == "this tree cannot read its experiment.yaml: learning_rate_trials: unknown key"


def test_every_figure_of_a_run_has_the_version_that_the_tree_gives_it(ran: Ran) -> None:
    for row in folder.read(ran.out).rows:
        assert {name: version_of(name) for name in row.metrics} == {name: f.version for name, f in row.metrics.items()}
    assert version_of("kept_controls/l0") == version_of("kept/l0") == METRICS["kept"].version
    assert version_of("nobody/knows") is None


def test_the_command_that_stands_in_a_table_makes_it_again(ran: Ran, in_process: Call, tmp_path: Path) -> None:
    text = (ran.out / "table.md").read_text()
    assert "- again, in this folder: `OMP_NUM_THREADS=1 harness run experiment.yaml --device cpu`" in text
    command = ["run", str(ran.out / "experiment.yaml"), "--device", "cpu", "--out", str(tmp_path / "out")]
    assert harness(*command, store=ran.store, threads=1).returncode == 0
    assert in_process("diff", str(ran.out), str(tmp_path / "out"), store=tmp_path)[0] == 0
