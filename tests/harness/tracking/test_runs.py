"""What a live run leaves in MLflow: a parent with the headline, a child for every row and seed."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import pytest

from harness.base.errors import Interrupted
from harness.tables.build import SeedResult
from harness.tables.measurement import Measurement
from harness.tables.table import RowProvenance

pytestmark = pytest.mark.slow
TOPK = "dense+topk[k=16]"


def test_an_invocation_leaves_parent_child_params_curve_figures_and_corpus(given, tmp_path: Path) -> None:
    curve = given.curve(tmp_path / "curve.jsonl", range(1, 701))
    table = given.finished_folder(tmp_path / "results")
    rows = {
        (TOPK, 0): {"tokens": 8, "optimizer": {"lr": 0.1}},
        ("dense", 0): {"tokens": 8, "optimizer": {"lr": 0.2}},
    }
    with given.tracker().invocation(given.corpus, "cfg", rows=rows, matched="tokens") as invocation:
        with invocation.row(TOPK, 0, "dictionary", ["L1.mlp+out"]) as run:
            run.curve(curve, prefix="L1.mlp+out")
            run.finish(given.result())
        invocation.finish(table, tmp_path / "results", {TOPK: "#0072B2"})
    client = given.client()
    parent, child = given.runs()
    assert (parent.info.status, child.info.status) == ("FINISHED", "FINISHED")
    assert child.info.run_name == "dense+topk[k=16] seed 0"
    assert child.data.params == {
        "system": TOPK, "seed": "0", "kind": "dictionary", "optimizer.lr": "0.1"
    }  # fmt: skip
    tags = child.data.tags
    assert tags["mlflow.parentRunId"] == parent.info.run_id
    assert (tags["system"], tags["kind"], tags["road"], tags["seed"]) == (TOPK, "dictionary", "post-hoc", "0")
    assert (tags["matched"], tags["mlflow.source.name"], tags["mlflow.runColor"]) == (
        "tokens", "harness run quick", "#0072B2"
    )  # fmt: skip
    assert tags.keys() >= {"commit", "mlflow.user", "mlflow.note.content", "mlflow.source.git.commit"}
    assert {key for key in tags if key.startswith("harness.")} == {"harness.key", "harness.process"}
    assert child.data.metrics["loss/spliced_bits_per_byte"] == 2.0
    assert child.data.metrics["train/L1.mlp.out/l0"] == 3.0
    assert "train/L1.mlp.out/lr" not in child.data.metrics  # not among the columns of a dictionary's curve
    history = client.get_metric_history(child.info.run_id, "train/L1.mlp.out/loss")
    assert [m.step for m in history] == list(range(1, 701))
    assert parent.data.metrics[f"headline/spliced_bits_per_byte/{TOPK.replace('+', '.')[:10]}.k.16."] == 2.0
    assert parent.data.params["corpus.kind"] == "installed"
    files = {f.path for f in client.list_artifacts(parent.info.run_id)}
    assert files == {
        "table.md", "details.md", "table.csv", "table.json", "experiment.yaml", "figures", "constant_parameters.json"
    }  # fmt: skip
    files = {f.path for f in client.list_artifacts(child.info.run_id)}
    assert files == {"config.json", "figures.json", "curves"}


def test_a_corpus_has_one_name_in_every_experiment(given) -> None:
    with given.tracker().invocation(given.corpus, "cfg") as invocation, invocation.row("dense", 0, "subject"):
        pass
    found = [run.inputs.dataset_inputs[0].dataset for run in given.runs()]
    assert {(one.name, one.digest) for one in found} == {("corpus cccccccccccc", "c" * 36)}
    assert '"prose"' in found[0].profile


def test_the_machine_is_sampled_on_the_parent_alone(given, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.tracking.runs._MACHINE_SECONDS", 0.2)
    with given.tracker().invocation(given.corpus, "cfg") as invocation, invocation.row("dense", 0, "subject"):
        time.sleep(2)
    parent, child = given.runs()
    assert any(key.startswith("system/") for key in parent.data.metrics)
    assert not any(key.startswith("system/") for key in child.data.metrics)


def test_failure_is_marked_with_its_traceback_and_interruption_as_killed(given) -> None:
    with (
        pytest.raises(RuntimeError),
        given.tracker().invocation(given.corpus, "a") as invocation,
        invocation.row("dense", 0, "subject"),
    ):
        raise RuntimeError("the wolf came")
    with (
        pytest.raises(Interrupted),
        given.tracker().invocation(given.corpus, "b") as invocation,
        invocation.row("peer", 0, "subject"),
    ):
        raise Interrupted("stop")
    (failed,) = given.runs("dense seed")
    assert failed.info.status == "FAILED"
    assert "the wolf came" in failed.data.tags["traceback"]
    assert [f.path for f in given.client().list_artifacts(failed.info.run_id)] == ["traceback.txt"]
    assert given.runs("peer seed")[0].info.status == "KILLED"
    assert [r.info.status for r in given.runs("quick ")] == ["FAILED", "KILLED"]


def test_what_metrics_left_is_sent_tables_and_pairs_as_tables(given, tmp_path: Path) -> None:
    (tmp_path / "units.table.json").write_text(json.dumps({"unit": [1, 2], "explanation": ["dates", "names"]}))
    pair = {"sites": ["0", "1"], "units": [3, 4], "lift": 2.5, "contexts": [{"text": "in ", "token": "May"}]}
    (tmp_path / "pairs.json").write_text(json.dumps({"system": "dense", "pairs": [pair]}))
    (tmp_path / "pairs.md").write_text("# pairs")
    (tmp_path / "measurements.json").write_text("{}")
    with given.tracker().invocation(given.corpus, "cfg") as invocation, invocation.row("dense", 0, "subject") as run:
        run.details(tmp_path, "joint")
    (child,) = given.runs("dense seed")
    assert {f.path for f in given.client().list_artifacts(child.info.run_id, "joint")} == {
        "joint/units.json", "joint/pairs.json", "joint/pairs.md"
    }  # fmt: skip
    shown = json.loads(child.data.tags["mlflow.loggedArtifacts"])
    assert {one["path"] for one in shown} == {"joint/units.json", "joint/pairs.json"}
    stored = json.loads(
        (given.store / "mlflow" / "artifacts" / "quick").glob("*/artifacts/joint/pairs.json").__next__().read_text()
    )
    assert stored == {"columns": ["sites", "units", "lift", "context"], "data": [["0 × 1", "3 × 4", 2.5, "in May"]]}


def test_every_figure_is_in_a_file_in_full_and_what_is_none_says_why(given) -> None:
    figures = [Measurement(f"joint/figure_{n}", n / 3, "", "none", 1) for n in range(2_500)]
    figures += [Measurement("usage/dead", math.nan, "", "none", 1, reason="by construction")]
    with given.tracker().invocation(given.corpus, "cfg") as invocation, invocation.row("dense", 0, "subject") as run:
        run.finish(SeedResult("dense", "subject", 0, figures, RowProvenance()))
    (child,) = given.runs("dense seed")
    assert child.data.metrics == {}
    assert child.data.tags["nan"] == "usage/dead: by construction"
    (file,) = (given.store / "mlflow" / "artifacts" / "quick").glob("*/artifacts/figures.json")
    found = json.loads(file.read_text())
    assert found["joint/figure_1"]["value"] == 1 / 3
    assert found["usage/dead"] == {"value": None, "reason": "by construction"}


def test_very_long_names_and_settings_keep_tracking_on(given) -> None:
    name = "dense+topk[" + ",".join(f"setting_{n}={n}" for n in range(40)) + "]"
    assert len(name) > 300
    held = given.tracker()
    rows = {(name, 0): {"settings": {"long": "x" * 20_000}}}
    with held.invocation(given.corpus, "cfg", rows=rows) as invocation:
        with invocation.row(name, 0, "dictionary") as run:
            run.finish(given.result(name))
        with invocation.row(f"{name[:-1]},k=1]", 0, "dictionary") as run:
            run.finish(given.result(f"{name[:-1]},k=1]"))
    assert held.client is not None
    one, two = given.runs("dense+topk")
    assert one.info.run_name != two.info.run_name
    assert one.data.params["system"] == name
