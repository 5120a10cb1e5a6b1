"""When reports of units are made, and that they make nothing else anew."""

from __future__ import annotations

from typing import Any

from harness.experiment.schema import Experiment
from harness.run.comparison import config_hash
from harness.run.numerics import Numerics
from harness.run.plan import Plan, make_plan
from harness.store.stages import Stage


def plan(metrics: Any = ("loss",), **evaluation: int) -> Plan:
    settings = {
        "name": "reports",
        "budget": {"matched": "none"},
        "systems": ["dense", "dense+topk"],
        "metrics": metrics if isinstance(metrics, dict) else list(metrics),
        "references": ["bigram"],
        "search": {"rates": [1]},
        "seeds": [4, 1],
        "evaluation": evaluation,
    }
    return make_plan(Experiment.model_validate(settings), Numerics("cpu", "float32", 2))


def of(made: Plan, name: str = "dense") -> Stage:
    found = next(row.units for row in made.rows if row.spec.name == name)
    assert found is not None
    return found


def test_the_first_seed_of_every_row_is_reported_and_0_asks_for_none() -> None:
    assert [(row.spec.name, row.seed) for row in plan().rows if row.units] == [("dense", 4), ("dense+topk", 4)]
    assert [stage.label for stage in plan().stages() if stage.kind == "units"] == [
        "units of dense, seed 4",
        "units of dense+topk, seed 4",
    ]
    assert not any(row.units for row in plan(unit_reports=0).rows)


def test_how_many_are_asked_for_moves_no_other_stage_and_no_table() -> None:
    def others(made: Plan) -> list[str]:
        return [stage.key for stage in made.stages() if stage.kind != "units"]

    few, many = plan(unit_reports=8), plan(unit_reports=9)
    assert others(few) == others(many) == others(plan(unit_reports=0))
    assert config_hash(few) == config_hash(many)
    assert of(few).key != of(many).key


def test_the_key_follows_what_is_read_and_the_metrics_that_speak_of_units() -> None:
    metrics: dict[str, Any] = {"loss": {}, "autointerp": {}, "joint": {}}
    row = next(row for row in plan(metrics).rows if row.units)
    assert row.units is not None
    assert row.codes.key in row.units.upstream
    assert set(row.codes.upstream) < set(row.units.upstream)
    assert {row.metrics["autointerp"].key, row.metrics["joint"].key} < set(row.units.upstream)
    assert row.metrics["loss"].key not in row.units.upstream
    keys = {
        of(plan(metrics)).key,
        of(plan()).key,
        of(plan({**metrics, "joint": {"active": 7}})).key,
        of(plan({**metrics, "autointerp": {"strongest": 7}})).key,
        of(plan(metrics, codes_sequences=7)).key,
        of(plan(metrics), "dense+topk").key,
    }
    assert len(keys) == 6


def test_units_fire_where_they_fire_for_those_who_explain_them() -> None:
    assert of(plan()).config["strongest"] == 32
    assert of(plan({"autointerp": {"strongest": 7}})).config["strongest"] == 7
