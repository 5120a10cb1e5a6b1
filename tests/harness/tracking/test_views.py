"""Chart views: what each shows, and that the interface adds nothing of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from harness.tracking import chosen, views

KEYS = {
    "loss/spliced_bits_per_byte": 3, "loss/bits_per_byte": 3, "loss/splice_cost": 1, chosen.LOG_UNITS: 3,
    "cost/training_flops": 3, "joint/pairs_code": 2, "train/loss": 2, "train/units_used": 2, "train/0.mlp/loss": 1,
    "train/1.mlp/loss": 1, "train/0.mlp/dead_share": 1,
}  # fmt: skip
SHOWN = views.Shown(KEYS, ["joint/pairs_code"])


def drawn(state: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [chart for chart in state["compareRunCharts"] if not chart["deleted"]]


@pytest.mark.parametrize("name", list(views.VIEWS))
def test_every_metric_has_one_chart_or_is_taken_away_so_that_none_is_added(name: str) -> None:
    charts = views.state(name, SHOWN, "parent")["compareRunCharts"]
    keys = [chart["metricKey"] for chart in charts if "metricKey" in chart]
    assert sorted(keys) == sorted(set(keys))
    assert set(keys) == set(KEYS)
    assert len({chart["uuid"] for chart in charts}) == len(charts)


def test_a_figure_of_one_row_is_no_bar() -> None:
    keys = [chart.get("metricKey") for chart in drawn(views.state("loss against L0", SHOWN, "parent"))]
    assert "loss/splice_cost" not in keys
    assert "joint/pairs_code" in keys  # the headline is shown with the loss


def test_the_loss_is_drawn_against_the_logarithm_of_units() -> None:
    first, *_ = drawn(views.state("loss against L0", SHOWN, "parent"))
    assert (first["type"], first["xaxis"]["key"], first["yaxis"]["key"]) == (
        "SCATTER", "sparsity/log10_units", "loss/spliced_bits_per_byte"
    )  # fmt: skip


def test_cross_entropy_and_what_dictionaries_miss_have_charts_of_their_own() -> None:
    (subjects, *_) = drawn(views.state("subject curves", SHOWN, "parent"))
    assert subjects["selectedMetricKeys"] == ["train/loss"]
    found = [chart["selectedMetricKeys"] for chart in drawn(views.state("dictionary curves", SHOWN, "parent"))]
    assert found == [["train/0.mlp/dead_share"], ["train/0.mlp/loss", "train/1.mlp/loss"]]


def test_use_of_units_is_drawn_over_training() -> None:
    charts = drawn(views.state("dead and used units", SHOWN, "parent"))
    assert [(chart["type"], chart["metricKey"]) for chart in charts] == [
        ("LINE", "train/0.mlp/dead_share"), ("LINE", "train/units_used")
    ]  # fmt: skip


def test_columns_stand_in_one_order_and_rows_are_those_of_one_invocation() -> None:
    state = views.state("cost", SHOWN, "the parent")
    columns = ["params.`system`", "params.`seed`", "metrics.`joint/pairs_code`", "metrics.`loss/bits_per_byte`"]
    assert state["selectedColumns"][:4] == columns
    assert state["columnOrder"] == state["selectedColumns"]
    assert state["searchFilter"] == "tags.`mlflow.parentRunId` = 'the parent'"
    assert state["groupBy"] is None  # a group would not have the colour that its system has in figures


def test_a_view_without_a_chart_is_none() -> None:
    assert views.state("dictionary curves", views.Shown({"loss/bits_per_byte": 2}), "parent") == {}
    assert views.table_state(["system/cpu"]) == {}


@pytest.mark.slow
def test_views_are_written_for_seen_versions_only_and_keep_their_address(
    given, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    def written() -> dict[str, Any]:
        tags = given.client().get_experiment_by_name("quick").tags
        return {key: json.loads(value) for key, value in tags.items() if key.startswith(views.PREFIX)}

    def run() -> None:
        with given.tracker().invocation(given.corpus, "cfg") as invocation:
            for seed in (0, 1):
                with invocation.row("dense", seed, "subject") as tracked:
                    tracked.finish(given.result("dense", seed))
            invocation.finish(given.finished_folder(tmp_path), tmp_path)

    monkeypatch.setattr(mlflow, "__version__", "4.0.0")
    run()
    assert written() == {}
    monkeypatch.setattr(mlflow, "__version__", "3.17.2")
    run()
    first = written()
    assert sorted(view["name"] for view in first.values()) == ["headline", "loss against L0"]
    run()
    assert written().keys() == first.keys()
    newest = given.runs("quick ")[-1]
    (state,) = (json.loads(view["state"]) for view in written().values() if view["name"] == "loss against L0")
    assert newest.info.run_id in state["searchFilter"]
    note = newest.data.tags["mlflow.note.content"]
    assert f"[loss against L0]({views.link('', newest.info.experiment_id, 'loss against L0')})" in note


def test_a_view_that_would_be_cut_off_is_written_without_what_it_takes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    many = views.Shown({f"joint/figure_{n}": 2 for n in range(200)} | KEYS)
    state = views.state("cost", many, "parent")
    assert len(views.fitting("cost", state, 0)) <= 20_000
    assert json.loads(json.loads(views.fitting("cost", state, 0))["state"])["compareRunCharts"] == drawn(state)
