"""`harness log`: what a results folder gives later is what the run itself would have given, and is given once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness.experiment.schema import load
from harness.report.style import marks
from harness.run import comparison
from harness.run.numerics import Numerics
from harness.run.plan import make_plan
from harness.store.stages import Store
from harness.tables.folder import read
from harness.tracking.later import log_results

pytestmark = pytest.mark.slow


def test_a_results_folder_is_sent_once_with_its_stored_curves(given, tmp_path: Path) -> None:
    given.finished_folder(tmp_path / "results")
    given.curve(given.store / "subject" / "abc" / "curve.jsonl", range(1, 9))
    assert "was sent to" in log_results(tmp_path / "results", given.store)
    assert [r.info.status for r in given.runs()] == ["FINISHED"] * 3
    children = given.runs("dense+topk")
    assert sorted(r.data.params["seed"] for r in children) == ["0", "1"]
    assert children[0].data.metrics["loss/bits_per_byte"] == 1.9
    assert len(given.client().get_metric_history(children[0].info.run_id, "train/loss")) == 8
    (parent,) = given.runs("quick ")
    assert parent.data.tags["mlflow.source.git.commit"] == "old"
    assert "already; nothing was sent" in log_results(tmp_path / "results", given.store)
    assert len(given.runs()) == 3


def test_results_of_a_tracked_run_are_not_sent_again(given, tmp_path: Path) -> None:
    table = given.finished_folder(tmp_path / "results")
    with given.tracker().invocation(given.corpus, "cfg") as invocation:
        invocation.finish(table, tmp_path / "results")
    assert "already" in log_results(tmp_path / "results", given.store)


SMALL = (
    "training.tokens=4096", "dictionary_training.train_tokens=4096", "references=[bigram]", "metrics=[loss, sparsity]"
)  # fmt: skip
# What two sendings cannot share: who sent it, when, and the runs' own ids.
THEIR_OWN = ("harness.process", "mlflow.parentRunId", "mlflow.runName", "mlflow.note.content")


def test_a_run_sent_later_is_what_it_would_have_been_live(given, tmp_path: Path) -> None:
    plan = make_plan(load("smoke", list(SMALL)), Numerics("cpu", "float32", 1))
    comparison.run(plan, Store(given.store), tmp_path / "out")
    later = type(given)(tmp_path / "later")
    shutil.copytree(given.store, later.store, ignore=shutil.ignore_patterns("mlflow"))
    colours = {system: mark.colour for system, mark in marks(read(tmp_path / "out")).items()}
    log_results(tmp_path / "out", later.store, lambda _: colours)
    live, logged = of_smoke(given), of_smoke(later)
    assert live.keys() == logged.keys() == {"", "bigram", "dense", "dense+topk", "peer"}
    for system, run in live.items():
        other = logged[system]
        assert run.data.metrics == other.data.metrics or system == ""  # the parent has the machine's metrics too
        assert run.data.params == other.data.params
        assert shared(run.data.tags) == shared(other.data.tags)
        assert files(given, run) == files(later, other)
        for key in (key for key in run.data.metrics if key.startswith("train/")):
            assert points(given, run, key) == points(later, other, key)
        assert run.data.tags.get("mlflow.runColor") == colours.get(system)
    headlines = [{k: v for k, v in of[""].data.metrics.items() if k.startswith("headline/")} for of in (live, logged)]
    assert headlines[0] == headlines[1] != {}
    assert {"loss/splice_cost", "train/mlp_out.0/explained_variance"} <= live["dense+topk"].data.metrics.keys()
    assert live["dense"].data.params.keys() > {"architecture", "settings.d_ff"}


def of_smoke(given):
    client = given.client()
    experiment = client.get_experiment_by_name("smoke")
    return {run.data.tags.get("system", ""): run for run in client.search_runs([experiment.experiment_id])}


def shared(tags):
    return {key: value for key, value in tags.items() if key not in THEIR_OWN}


def files(given, run):
    return {file.path for file in given.client().list_artifacts(run.info.run_id)}


def points(given, run, key):
    return [(point.step, point.value) for point in given.client().get_metric_history(run.info.run_id, key)]
