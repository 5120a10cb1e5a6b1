"""Budgets: what a system takes before it is trained, and that what is free is solved until systems are equal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

import models
import saes
from harness.base.errors import BadInput
from harness.experiment.budget import Budget, _dictionary_cost
from harness.experiment.matching import Matching, amount
from harness.experiment.schema import load
from harness.run.numerics import Numerics
from harness.run.plan import Plan, make_plan
from harness.training.optimizer import step_flops
from saes.relu import ReLUConfig

SMALL = {"d_model": 32, "n_layers": 2, "n_heads": 2}
POOL = {**SMALL, "n_experts": 256, "heads": 2, "d_key": 8}
CORPUS = {"vocab_size": 400, "sequence_length": 64}


def planned(tmp_path: Path, systems: dict[str, Any], **more: Any) -> Plan:
    file = tmp_path / "mine.yaml"
    written = {"corpus": CORPUS, "systems": systems, "metrics": ["loss"], "training": {"tokens": 20_000}, **more}
    file.write_text(yaml.safe_dump(written, sort_keys=False))
    return make_plan(load(str(file)), Numerics("cpu", "float32", 1))


def problem(tmp_path: Path, systems: dict[str, Any], **more: Any) -> str:
    with pytest.raises(BadInput) as caught:
        planned(tmp_path, systems, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def budgets(matching: Matching) -> dict[str, Budget]:
    return {line.spec.name: line.budget for line in matching.lines}


def test_a_budget_counts_subject_teacher_collecting_and_dictionary(tmp_path: Path) -> None:
    systems = {
        "dense": SMALL,
        "dense[d_ff=64]": {**SMALL, "training": {"target": {"kind": "kl", "teacher": "dense"}}},
        "dense+topk": {"n_latents": 128, "k": 8},
    }
    settings = {"train_tokens": 10_240, "batch_tokens": 1024, "buffer_tokens": 4096}
    found = budgets(planned(tmp_path, systems, budget={"matched": "none"}, dictionary_training=settings).matching)
    model = models.build("dense", **SMALL, vocab_size=400, max_position_embeddings=64)
    forward, tokens = model.forward_flops_per_token(64), 20_480  # 40 whole batches of 8 × 64
    assert found["dense"].training_flops == 3 * forward * tokens + 40 * step_flops(model)
    assert found["dense"].size.parameters == sum(p.numel() for p in model.parameters())
    assert found["dense"].size.active_parameters == model.active_parameters()
    student = found["dense[d_ff=64]"]
    assert student.teacher_flops == found["dense"].training_flops + forward * tokens
    own = 3 * student.size.forward_flops * tokens + 40 * student.size.step_flops
    assert student.training_flops == own + student.teacher_flops
    topk = found["dense+topk"]
    assert topk.collecting_flops == forward * 10_240
    # One product with the encoder, and for each of 8 latents 6·d at the decoder and 4·d at the encoder, at 2 layers.
    assert topk.dictionary_flops == 2 * (2 * 32 * 128 + 8 * (6 + 4) * 32) * 10_240
    assert topk.subject_flops == found["dense"].subject_flops


def test_training_flops_are_matched_by_tokens_within_two_percent(tmp_path: Path) -> None:
    systems = {
        "dense": SMALL,
        "peer": {**POOL, "k": 4},
        "dense-swiglu": SMALL,
        "dense+topk": {"n_latents": 128, "k": 8},
    }
    settings = {"train_tokens": 10_240, "batch_tokens": 1024, "buffer_tokens": 4096}
    plan = planned(tmp_path, systems, dictionary_training=settings)
    found = budgets(plan.matching)
    total = max(found[row].training_flops for row in ("peer", "dense-swiglu", "dense+topk"))
    for row in ("peer", "dense-swiglu", "dense+topk"):
        assert abs(found[row].training_flops / total - 1) < 0.02, row
        assert found[row].tokens >= 20_000
    # What the dictionary row is made of is not trained twice and not matched by itself.
    assert found["dense"].tokens == 20_480
    assert plan.matching.notes("dense") == ["not matched: a part of dense+topk"]
    assert plan.matching.notes("peer")[0].startswith("tokens ")
    # The stages are those of the solved systems.
    trained = {run.spec.name: run.subject.config["training"]["tokens"] for run in plan.rows}
    assert trained["peer"] > 20_000 == trained["dense"]
    by_name = {run.spec.name: run.subject.key for run in plan.rows}
    assert by_name["dense"] == by_name["dense+topk"]


@pytest.mark.parametrize("kind", ["active_parameters", "forward_flops"])
def test_sizes_are_matched_by_the_width_of_dense_and_the_number_of_active_experts(tmp_path: Path, kind: str) -> None:
    systems = {"peer": POOL, "dense": SMALL, "dense+topk": {"n_latents": 128, "k": 8}, "peer[k=6]": POOL}
    plan = planned(tmp_path, systems, budget={"matched": kind}, baseline="peer[k=6]")
    found = {line.spec.name: line for line in plan.matching.lines}
    subjects = {name: line for name, line in found.items() if line.spec.dictionary is None}
    total = amount(found["peer[k=6]"].budget, kind)
    for name, line in subjects.items():
        assert abs(amount(line.budget, kind) / total - 1) < 0.02, name
    assert found["peer"].spec.subject.settings["k"] == 6
    assert found["dense"].spec.subject.settings["d_ff"] != 128
    assert found["dense+topk"].spec.subject == found["dense"].spec.subject  # one subject for both rows


def test_what_a_row_states_is_not_free_and_a_comparison_that_is_not_matched_is_refused(tmp_path: Path) -> None:
    stated = {"dense": SMALL, "peer": {**POOL, "training": {"tokens": 5_000}}}
    says = problem(tmp_path, stated)
    assert says.startswith("systems.peer: training_flops is -")
    assert "states its own tokens" in says
    assert "budget.matched=none" in says
    assert planned(tmp_path, stated, budget={"matched": "none"}).matching.statement.startswith("nothing")
    freed = planned(tmp_path, stated, budget={"free": {"peer": "tokens"}}).matching
    assert abs(budgets(freed)["peer"].training_flops / budgets(freed)["dense"].training_flops - 1) < 0.02


def test_a_size_that_cannot_come_near_is_refused_with_the_nearest(tmp_path: Path) -> None:
    systems = {"dense[d_ff=4096]": SMALL, "peer": POOL}
    says = problem(tmp_path, systems, budget={"matched": "forward_flops"})
    assert "systems.peer: forward_flops is -" in says
    assert "comes no nearer than with k=16" in says  # there are 16 sub-keys


def test_a_free_size_may_be_named_and_an_amount_stated(tmp_path: Path) -> None:
    systems = {"dense": SMALL, "peer": POOL}
    budget = {"matched": "training_flops", "amount": 2e10, "free": {"dense": "d_ff"}}
    found = {line.spec.name: line for line in planned(tmp_path, systems, budget=budget).matching.lines}
    for line in found.values():
        assert abs(line.budget.training_flops / 2e10 - 1) < 0.02
    assert found["dense"].budget.tokens == 20_480
    assert found["dense"].spec.subject.settings["d_ff"] > 128


def test_tokens_are_matched_where_rows_only_inherit_them(tmp_path: Path) -> None:
    systems = {"dense": SMALL, "peer": POOL}
    assert planned(tmp_path, systems, budget={"matched": "tokens"}).matching.statement == "tokens 2.048e+04, to 2.0%"
    stated = {**systems, "peer": {**POOL, "training": {"tokens": 10_000}}}
    assert "tokens is -50.0%" in problem(tmp_path, stated, budget={"matched": "tokens"})


def test_points_of_the_scaling_curve_teachers_and_untrained_controls_are_not_matched(tmp_path: Path) -> None:
    small = {"n_layers": 2, "n_heads": 2}
    systems = {
        "dense[d_model=16]": {**small, "training": {"tokens": 2000}},
        "dense[d_model=32]": small,
        "dense[d_model=64]": {**small, "training": {"tokens": 50_000}},
        "dense": {**small, "d_ff": 256},
        "dense-relu": {**small, "training": {"target": {"kind": "kl", "teacher": "dense"}}},
        "peer[untrained=true]": POOL,
    }
    curve = [f"dense[d_model={d}]" for d in (16, 32, 64)]
    matching = planned(tmp_path, systems, scaling=curve).matching
    reasons = {line.spec.name: line.unmatched for line in matching.lines}
    assert reasons == {
        **dict.fromkeys(curve, "a point of the scaling curve"),
        "dense": "the teacher of dense-relu",
        "dense-relu": None,
        "peer[untrained=true]": "an untrained control",
    }
    assert budgets(matching)["peer[untrained=true]"].training_flops == 0


def test_training_counts_the_optimisers_products_in_every_step(tmp_path: Path) -> None:
    found = budgets(planned(tmp_path, {"dense": SMALL}).matching)["dense"]
    # Muon's Newton–Schulz on the matrices of two layers: q, k, v, o of 32 × 32, in and out of 128 × 32.
    products = 2 * (4 * 5 * (4 * 32**3 + 2 * 32**3) + 2 * 5 * (4 * 32 * 32 * 128 + 2 * 32**3))
    assert found.training_flops == 3 * found.size.forward_flops * 20_480 + 40 * products


def test_dictionaries_with_a_share_leave_the_rest_to_their_subject(tmp_path: Path) -> None:
    systems = {"dense": SMALL, "dense+topk": {"n_latents": 128, "k": 8, "share": 0.2}}
    settings = {"train_tokens": 10_240, "batch_tokens": 256, "buffer_tokens": 4096}
    plan = planned(tmp_path, systems, budget={"amount": 3e11}, dictionary_training=settings)
    found = budgets(plan.matching)
    row = found["dense+topk"]
    assert (row.collecting_flops + row.dictionary_flops) / row.training_flops == pytest.approx(0.2, abs=0.01)
    assert row.training_flops == pytest.approx(3e11, rel=0.01)
    assert found["dense"].training_flops == pytest.approx(3e11, rel=0.01)  # a row of its own, matched too
    assert all(line.unmatched is None for line in plan.matching.lines)


def test_dictionaries_on_top_leave_the_budget_to_their_subject_and_are_not_matched(tmp_path: Path) -> None:
    systems = {"dense": SMALL, "dense+topk": {"n_latents": 128, "k": 8, "share": 0.2, "on_top": True}}
    settings = {"train_tokens": 10_240, "batch_tokens": 256, "buffer_tokens": 4096}
    plan = planned(tmp_path, systems, budget={"amount": 3e11}, dictionary_training=settings)
    found = budgets(plan.matching)
    assert found["dense+topk"].subject_flops == found["dense"].training_flops == pytest.approx(3e11, rel=0.01)
    assert found["dense+topk"].training_flops == pytest.approx(3.6e11, rel=0.01)
    assert plan.matching.notes("dense+topk")[-1].endswith("its dictionaries come on top of what its subject takes")
    runs = {run.spec.name: run for run in plan.rows}
    assert runs["dense+topk"].subject.key == runs["dense"].subject.key


def test_a_row_may_get_a_part_of_the_budget(tmp_path: Path) -> None:
    systems = {"dense": SMALL, "dense[variant=half]": {**SMALL, "budget": 0.5}}
    plan = planned(tmp_path, systems, budget={"amount": 3e11})
    found = budgets(plan.matching)
    assert found["dense[variant=half]"].training_flops == pytest.approx(1.5e11, rel=0.01)
    assert plan.matching.notes("dense[variant=half]")[-1] == "not matched: it gets 0.5 of the budget"


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"budget": {"matched": "flops"}}, "budget.matched = 'flops'"),
        ({"budget": {"free": {"pear": "k"}}}, "budget.free: no row 'pear'; did you mean peer?"),
        ({"budget": {"free": {"peer": "kk"}}}, "budget.free.peer = 'kk': did you mean k?"),
        ({"budget": {"tolerance": 0}}, "budget.tolerance = 0"),
        ({"scaling": ["dense", "peer"]}, "scaling = ['dense', 'peer']: a curve needs at least 3 rows"),
        ({"scaling": ["dence"]}, "scaling: no trained subject row 'dence'; did you mean dense?"),
        ({"search": {"rates": [0]}}, "search.rates.0 = 0"),
        ({"search": {"rate": [5]}}, "search.rate: unknown key; did you mean rates?"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(tmp_path: Path, more: dict[str, Any], says: str) -> None:
    assert says in problem(tmp_path, {"dense": SMALL, "peer": POOL}, **more)


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        ("topk", 2 * 32 * 128 + 128 + 32),
        ("relu", 2 * 32 * 128 + 128 + 32),
        ("skip_transcoder", 2 * 32 * 128 + 128 + 32 + 32 * 32),
        ("mutual_choice", 2 * 32 * 128 + 2 * 128 + 32),  # and a threshold
        ("saelens:gated", 2 * 32 * 128 + 3 * 128 + 32),  # gate, magnitude and its scale
    ],
)
def test_a_dictionary_counts_every_parameter_once(kind: str, parameters: int) -> None:
    size = _dictionary_cost(saes.DICTIONARIES[kind](n_latents=128, k=4), 32)[1]
    assert size.parameters == parameters
    assert size.active_parameters == parameters - (128 - 4) * 32 - (128 if kind == "mutual_choice" else 0)


def test_a_tied_encoder_works_as_much_as_one_of_its_own() -> None:
    sizes = [_dictionary_cost(ReLUConfig(n_latents=128, k=4, tied=tied), 32)[1] for tied in (True, False)]
    assert sizes[0].forward_flops == sizes[1].forward_flops == 2.0 * (32 * 128 + 4 * 32)
