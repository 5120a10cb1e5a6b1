"""Subjects that start from a trained dense row: what is planned, charged and refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import models
from harness.base.errors import BadInput
from harness.experiment.budget import Budget
from harness.experiment.schema import load
from harness.run.numerics import Numerics
from harness.run.plan import Plan, PlannedRow, make_plan
from harness.training import upcycling

SMALL = {"d_model": 32, "n_layers": 2, "n_heads": 2}
ROWS = {"dense": {**SMALL, "d_ff": 96}, "switch": {**SMALL, "n_experts": 4, "upcycle": "dense"}}


def planned(tmp_path: Path, systems: dict[str, Any], **more: Any) -> Plan:
    file = tmp_path / "mine.yaml"
    written = {"corpus": {"vocab_size": 400, "sequence_length": 64}, "systems": systems, "metrics": ["loss"]}
    file.write_text(yaml.safe_dump({**written, "training": {"tokens": 20_480}, **more}, sort_keys=False))
    return make_plan(load(str(file)), Numerics("cpu", "float32", 1))


def runs(plan: Plan, seed: int = 0) -> dict[str, PlannedRow]:
    return {run.spec.name: run for run in plan.rows if run.seed == seed}


def budgets(plan: Plan) -> dict[str, Budget]:
    return {line.spec.name: line.budget for line in plan.matching.lines}


def test_the_dense_stage_is_upstream_and_nothing_of_other_rows_changes(tmp_path: Path) -> None:
    more = {
        "budget": {"matched": "none"},
        "search": {"rates": [0.5, 1]},
        "seeds": [0, 1],
    }
    plan = planned(tmp_path, ROWS, **more)
    first, second = runs(plan), runs(plan, 1)
    dense = {run.seed: run.subject for run in plan.rows if run.spec.name == "dense"}
    assert dense[0].key in first["switch"].subject.upstream
    assert dense[1].key in second["switch"].subject.upstream
    trials = [trial for trial in plan.trials if trial.spec.name == "switch"]
    assert len({trial.stage.key for trial in trials}) == 2
    for trial in trials:  # of a seed of their own, and from the dense model of the first
        assert dense[0].key in trial.stage.upstream
        assert dense[0].key in [stage.key for stage in trial.stages()]
    plain = {**ROWS, "switch": {**SMALL, "n_experts": 4, "d_expert": 96}}
    other = runs(planned(tmp_path, plain, **more))
    assert other["dense"].subject.key == dense[0].key
    assert other["switch"].subject.key != first["switch"].subject.key


def test_training_of_the_dense_row_is_charged_and_matched(tmp_path: Path) -> None:
    found = budgets(planned(tmp_path, ROWS, budget={"matched": "none"}))
    assert found["switch"].origin_flops == found["dense"].training_flops > 0
    assert found["switch"].training_flops == found["switch"].subject_flops + found["dense"].training_flops
    plan = planned(tmp_path, {**ROWS, "peer": {**SMALL, "n_experts": 256, "heads": 2, "k": 4, "d_key": 8}})
    found = budgets(plan)
    assert plan.matching.notes("dense") == ["not matched: what switch is upcycled from"]
    assert found["switch"].training_flops == pytest.approx(found["peer"].training_flops, rel=0.02)


def test_sizes_that_the_dense_row_decides_are_not_free(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"budget\.free\.switch = 'd_expert': .*allowed: k, n_experts, tokens"):
        planned(tmp_path, ROWS, budget={"free": {"switch": "d_expert"}})


def test_the_model_starts_with_the_experts_of_the_dense_one(tmp_path: Path) -> None:
    dense: Any = models.build("dense", **SMALL, d_ff=96, vocab_size=400, max_position_embeddings=64, eos_token_id=7)
    dense.save_pretrained(tmp_path)
    settings = upcycling.completed("switch", {**SMALL, "n_experts": 4}, "dense", {**SMALL, "d_ff": 96})
    first: Any = upcycling.initial("switch", settings, tmp_path, 0)
    assert (first.config.d_expert, first.config.n_experts, first.config.router) == (96, 4, "linear")
    assert (first.config.vocab_size, first.config.eos_token_id) == (400, 7)
    source, expert = dense.feed_forwards()[0], first.feed_forwards()[0].experts[3]
    assert torch.equal(expert.w_out.weight, source.w_out.weight)
    again, other = (upcycling.initial("switch", settings, tmp_path, seed).state_dict() for seed in (0, 1))
    assert all(torch.equal(value, again[name]) for name, value in first.state_dict().items())
    assert not torch.equal(expert.w_in.weight, other["model.layers.0.feed_forward.experts.3.w_in.weight"])


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"switch": {"upcycle": "dens"}}, "systems.switch.upcycle = 'dens': no subject row .*did you mean dense?"),
        ({"switch": {"upcycle": True}}, "upcycle = True: no subject row"),
        ({"switch": {"upcycle": "switch"}}, "they would wait for each other"),
        ({"switch": {"upcycle": "peer"}}, "peer is not dense"),
        ({"switch": {"upcycle": "dense-relu"}}, "activation = 'gelu', but the dense model has 'relu'"),
        ({"switch": {"upcycle": "dense-solu"}}, "activation 'solu' cannot be upcycled: use one of gelu, relu"),
        ({"switch": {"upcycle": "dense", "n_layers": 3}}, "n_layers = 3, but the dense model has 2"),
        ({"switch": {"upcycle": "dense", "d_model": 64}}, "d_model = 64, but the dense model has 32"),
        ({"switch": {"upcycle": "dense", "d_expert": 5}}, "d_expert = 5, but the dense model has 96"),
        ({"switch": {"upcycle": "dense", "untrained": True}}, "an untrained control starts at random"),
        ({"dense": {"untrained": True, "d_ff": 96}}, "that row is not trained"),
        ({"peer": {"upcycle": "dense"}}, "peer cannot be upcycled .allowed: moex, switch"),
    ],
)
def test_what_cannot_be_upcycled_is_said_in_one_line(tmp_path: Path, changed: dict[str, Any], says: str) -> None:
    others = {"peer": SMALL, "dense-relu": SMALL, "dense-solu": SMALL}
    systems = {**ROWS, **others, **{row: {**SMALL, **options} for row, options in changed.items()}}
    if "peer" in changed:
        del systems["switch"]
    with pytest.raises(BadInput, match=says) as caught:
        planned(tmp_path, systems, budget={"matched": "none"})
    assert "\n" not in str(caught.value)
