"""Learning-rate trials: which factor is chosen, and what a trial that diverges does to the choice."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from harness.base.errors import HarnessError
from harness.training.trials import Outcome, Trials, chosen


def tried(losses: dict[float, float]) -> Trials:
    return chosen({scale: Outcome.of(loss, 2.0) for scale, loss in losses.items()}, "dense")


def test_the_lowest_loss_is_chosen_and_of_equals_the_smaller_factor() -> None:
    assert tried({0.5: 3.0, 1: 2.0, 2: 2.5}).scale == 1
    assert tried({0.5: 2.0, 1: 2.0, 2: 2.0}).scale == 0.5
    assert tried({0.5: 3.0, 2: 2.5, 1: 2.5}).scale == 1


def test_a_factor_at_the_edge_is_said_to_be_there() -> None:
    assert tried({0.5: 3.0, 1: 2.0, 2: 2.5}).note() == "learning rates x 1, of 0.5, 1, 2"
    assert tried({0.5: 3.0, 1: 2.0, 2: 1.5}).note() == "learning rates x 2, of 0.5, 1, 2 (at the edge of those tried)"
    assert tried({0.5: 1.0, 1: 2.0, 2: 1.5}).note().endswith("(at the edge of those tried)")


@pytest.mark.parametrize("lost", [math.nan, math.inf, -math.inf])
def test_a_trial_that_diverged_has_lost_wherever_it_stands_and_its_flops_count(lost: float) -> None:
    for losses in ({0.5: lost, 1: 3.0}, {1: 3.0, 2: lost}, {0.5: 4.0, 1: lost, 2: 3.0}):
        found = tried(losses)
        assert found.scale == min(scale for scale in losses if losses[scale] == 3.0)
        assert found.flops == 2.0 * len(losses)
    assert tried({1: 3.0, 2: lost}).note() == "learning rates x 1, of 1, 2 (diverged) (at the edge of those tried)"


def test_where_all_diverged_the_error_names_the_row_the_factors_and_what_to_do() -> None:
    with pytest.raises(HarnessError, match=r"^dense: every learning-rate trial diverged \(scales 1, 1e\+09\): add"):
        tried({1: math.nan, 1e9: math.inf})


def test_what_a_trial_gave_is_stored_as_plain_json_diverged_or_not(tmp_path: Path) -> None:
    for loss in (2.5, math.nan):
        outcome = Outcome.of(loss, 7.0)
        outcome.save(tmp_path)
        assert "NaN" not in (tmp_path / "trial.json").read_text()
        assert Outcome.load(tmp_path) == outcome
