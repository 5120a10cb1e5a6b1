"""Choosing by trials: what is taken, and what a trial that diverged does to the choice."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from harness.training.trials import Outcome, Round, Tried, chosen


def among(losses: dict[str, list[float]]) -> Round:
    tried = [Tried(label, tuple(Outcome.of(loss, 2.0) for loss in seeds)) for label, seeds in losses.items()]
    return chosen("shape", tried)


def test_the_lowest_mean_over_seeds_is_taken_and_of_equals_the_first() -> None:
    assert among({"a": [3.0], "b": [2.0], "c": [2.5]}).taken == 1
    assert among({"a": [2.0], "b": [2.0]}).taken == 0
    assert among({"lucky once": [1.0, 4.0], "b": [2.0, 2.0]}).taken == 1


@pytest.mark.parametrize("lost", [math.nan, math.inf, -math.inf])
def test_one_seed_that_diverges_loses_for_its_candidate_and_ends_nothing(lost: float) -> None:
    found = among({"fast": [1.0, lost], "slow": [3.0, 3.0]})
    assert found.taken == 1
    assert found.note() == "shape slow (nat/token: fast diverged, slow 3.000)"


def test_where_all_diverged_the_slowest_is_taken_and_nothing_ends() -> None:
    tried = [Tried(label, (Outcome.of(math.nan, 2.0),)) for label in ("x 1", "x 0.5", "x 2")]
    assert chosen("learning rates", tried, slowest=1).taken == 1


def test_while_nothing_was_tried_the_first_stands_for_the_choice() -> None:
    found = chosen("shape", [Tried("a", ()), Tried("b", ())])
    assert found.taken == 0
    assert "not tried yet" in found.note()


def test_what_a_trial_gave_is_stored_as_plain_json_diverged_or_not(tmp_path: Path) -> None:
    for loss in (2.5, math.nan):
        outcome = Outcome.of(loss, 7.0)
        outcome.save(tmp_path)
        assert "NaN" not in (tmp_path / "trial.json").read_text()
        assert Outcome.load(tmp_path) == outcome
