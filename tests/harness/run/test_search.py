"""The search for shapes, shares and learning rates: equally many trials, each with its share, and who is taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.base.errors import BadInput
from harness.experiment.schema import load
from harness.run.numerics import Numerics
from harness.run.plan import Plan, make_plan
from harness.run.search import FIRST_SEED, Outcomes, Trial
from harness.training.trials import Outcome

SMALL = {"d_model": 32, "n_layers": 2, "n_heads": 2}
ROWS: dict[str, Any] = {
    "dense": SMALL,
    "peer": {**SMALL, "n_experts": 256, "heads": 2, "d_key": 8},
    "dense+topk": {"n_latents": 128, "k": 8},
}
SEARCH: dict[str, Any] = {
    "share": 0.25,
    "seeds": 2,
    "rates": [0.5, 1, 2],
    "shapes": {"dense": [{"d_ff": 64}, {"d_ff": 16, "n_layers": 3}], "peer": [{"k": 4}, {"k": 2}]},
    "dictionary_shares": [0.1, 0.3],
    "dictionary_rates": [1, 3],
}


def planned(tmp_path: Path, outcome: Outcomes, systems: dict[str, Any] = ROWS, **more: Any) -> Plan:
    file = tmp_path / "mine.yaml"
    written = {
        "corpus": {"vocab_size": 400, "sequence_length": 64},
        "systems": systems,
        "metrics": ["loss"],
        "budget": {"amount": 2e11},
        "dictionary_training": {"train_tokens": 10_240, "batch_tokens": 256, "buffer_tokens": 4096},
        "search": SEARCH,
        **more,
    }
    file.write_text(yaml.safe_dump(written, sort_keys=False))
    return make_plan(load(str(file)), Numerics("cpu", "float32", 1), outcome)


def losing(*, but: str) -> Outcomes:
    """Every trial comes to 3 nats, those whose label has `but` in it to 2."""
    return lambda trial: Outcome(2.0 if but in trial.stage.label else 3.0, trial.flops)


def spec(plan: Plan, row: str) -> Any:
    return next(line.spec for line in plan.matching.lines if line.spec.name == row)


def test_every_family_gets_as_many_trials_of_equal_flops_whatever_its_shapes(tmp_path: Path) -> None:
    plan = planned(tmp_path, losing(but="d_ff=16"))
    assert {row: choice.trials for row, choice in plan.choices.items()} == {"dense": 8, "peer": 8, "dense+topk": 6}
    for trial in plan.trials:
        assert trial.flops == pytest.approx(0.25 * 2e11, rel=0.03), trial.stage.label
        assert trial.trained.seed in (FIRST_SEED, FIRST_SEED + 1)
    cheap = {trial.spec.subject.settings["d_ff"]: trial.spec.subject.training.tokens for trial in plan.trials[:3:2]}
    assert cheap[16] != cheap[64]  # equal FLOPs are not equal tokens


def test_the_best_shape_is_trained_and_its_dictionaries_stand_at_its_layers(tmp_path: Path) -> None:
    plan = planned(tmp_path, losing(but="d_ff=16"))
    assert spec(plan, "dense").subject.settings == {**SMALL, "d_ff": 16, "n_layers": 3}
    assert spec(plan, "peer").subject.settings["k"] == 4  # of equals the first
    assert [site.layer for site in spec(plan, "dense+topk").dictionary.sites] == [0, 1, 2]
    assert spec(plan, "dense+topk").subject.settings == spec(plan, "dense").subject.settings
    assert plan.choices["dense"].note().startswith("chosen on dev by 8 trials of 0.25 of the row's budget each: shape ")


def test_rates_are_tried_at_the_shape_that_was_taken_and_scale_what_is_trained(tmp_path: Path) -> None:
    plan = planned(tmp_path, losing(but="rates x 2"))
    mine = [trial for trial in plan.trials if trial.spec.name == "dense" and "rates x 2" in trial.stage.label]
    assert [trial.spec.subject.settings["d_ff"] for trial in mine] == [64, 64]
    assert spec(plan, "dense").subject.training.matrix_learning_rate == pytest.approx(0.08)
    assert spec(plan, "peer").subject.training.table_learning_rate == pytest.approx(0.02)


def test_the_dictionaries_share_and_rate_are_chosen_and_the_subject_takes_what_is_left(tmp_path: Path) -> None:
    plan = planned(tmp_path, losing(but="share 30%"))
    row, line = spec(plan, "dense+topk"), plan.matching.lines[2]
    assert row.dictionary.share == 0.3
    assert line.budget.subject_flops / line.budget.training_flops == pytest.approx(0.7, abs=0.02)
    faster = planned(tmp_path, losing(but="learning rate x 3"))
    assert spec(faster, "dense+topk").dictionary.config.lr == pytest.approx(0.015)
    assert spec(faster, "dense+topk").dictionary.share == 0.1


def test_a_stated_share_is_not_searched_but_its_rate_is(tmp_path: Path) -> None:
    rows = {**ROWS, "dense+topk": {"n_latents": 128, "k": 8, "share": 0.2, "on_top": True}}
    plan = planned(tmp_path, losing(but="nothing"), rows)
    assert plan.choices["dense+topk"].trials == 4
    mine = [trial for trial in plan.trials if trial.spec.name == "dense+topk"]
    for trial in mine:  # the subject has the whole share of a trial, the dictionaries come on top
        assert trial.flops == pytest.approx(1.2 * 0.25 * 2e11, rel=0.03)


def test_a_shape_that_diverges_with_one_seed_is_not_taken_and_ends_nothing(tmp_path: Path) -> None:
    def outcome(trial: Trial) -> Outcome:
        diverged = "d_ff=64" in trial.stage.label and trial.trained.seed == FIRST_SEED + 1
        return Outcome(None if diverged else 3.0, trial.flops)

    assert spec(planned(tmp_path, outcome), "dense").subject.settings["d_ff"] == 16


def test_where_every_trial_diverges_the_slowest_rates_are_taken_and_the_comparison_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plan = planned(tmp_path, lambda trial: Outcome(None, 1.0))
    assert spec(plan, "dense").subject.training.matrix_learning_rate == pytest.approx(0.02)
    assert spec(plan, "dense").subject.settings["d_ff"] == 64
    assert "dense: every trial of its learning rates diverged; x 0.5 is taken" in caplog.text
    assert "diverged" in plan.choices["dense"].note()


def test_until_trials_are_made_the_plan_says_so_and_their_flops_are_known(tmp_path: Path) -> None:
    plan = planned(tmp_path, lambda _trial: None)
    assert not plan.decided
    assert plan.choices["dense"].planned_flops == pytest.approx(8 * 0.25 * 2e11, rel=0.03)
    assert planned(tmp_path, losing(but="")).decided


@pytest.mark.parametrize(
    ("search", "budget", "says"),
    [
        ({"shapes": {"dense": [{"d_ff": 8}], "peer": [{"k": 2}, {"k": 4}]}}, {}, "every row gets as many"),
        (
            {"shapes": {"dence": [{"d_ff": 8}]}},
            {},
            "no trained subject row 'dence'; did you mean dense?",
        ),
        ({"shapes": {"dense": [{"dff": 8}]}}, {}, "search.shapes.dense: dff=8: unknown key dff; did you mean d_ff?"),
        (
            {"shapes": {"peer": [{"n_experts": 10}]}},
            {},
            "search.shapes.peer: n_experts=10: n_experts=10 ",
        ),
        ({}, {"amount": None}, "search: give budget.amount"),
        ({"shapes": {"dense": [{"d_ff": 8}]}}, {"matched": "forward_flops"}, "not at equal forward_flops"),
        ({"dictionary_shares": [0.1]}, {"matched": "tokens"}, "only where training_flops are matched"),
    ],
)
def test_what_cannot_be_searched_is_said_in_one_line(
    tmp_path: Path, search: dict[str, Any], budget: dict[str, Any], says: str
) -> None:
    with pytest.raises(BadInput) as caught:
        planned(tmp_path, lambda _trial: None, search=search, budget={"amount": 2e11, **budget})
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
