"""Planted worlds with known answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from harness.bench import joint_controls as controls
from harness.bench import joint_worlds as worlds
from harness.metrics.joint.excess import above_floor
from harness.metrics.joint.strangers import above_strangers, log_ratios, trimmed_mean

BY_NAME = {world.name: world for world in worlds.WORLDS}
CONTEXTS = 12


def found(name: str, pairs: int = 40, *, shuffle: bool = False) -> worlds.PairFigures:
    return worlds.run(BY_NAME[name], pairs, CONTEXTS, np.random.default_rng(1), shuffle=shuffle).over()


NOTHING = [world.name for world in worlds.WORLDS if world.combines is False]


@pytest.mark.parametrize("name", NOTHING)
def test_units_that_combine_nothing_stand_out_from_strangers_no_more_often_than_the_level(name: str) -> None:
    figures = found(name)
    against = figures.effect_b, figures.stranger, figures.stranger_effect
    assert (above_strangers(figures.excess, *against) < 0.05).mean() <= 0.15  # P(more than 6 of 40 at 5%) = 0.3%
    assert 0.7 < np.exp(trimmed_mean(log_ratios(figures.excess, *against))) < 1.5


def test_writes_where_later_layers_listen_fool_random_directions_and_not_strangers() -> None:
    figures = found("anisotropic")
    assert (above_floor(figures.excess, figures.floor) < 0.05).mean() > 0.3


@pytest.mark.parametrize("name", [name for name in NOTHING if name != "anisotropic"])
def test_where_writes_are_isotropic_the_floor_of_random_directions_holds_too(name: str) -> None:
    figures = found(name)
    assert (above_floor(figures.excess, figures.floor) < 0.05).mean() <= 0.15  # P(more than 6 of 40 at 5%) = 0.3%
    assert (above_floor(figures.magnitude, figures.magnitude_floor) < 0.05).mean() <= 0.15
    assert 0.6 < figures.excess.mean() / figures.floor.mean() < 1.6


def test_an_and_is_found_against_strangers() -> None:
    figures = found("and_1")
    against = figures.effect_b, figures.stranger, figures.stranger_effect
    assert (above_strangers(figures.excess, *against) < 0.05).mean() >= 0.9
    assert np.exp(trimmed_mean(log_ratios(figures.excess, *against))) > 4


def test_a_code_is_told_from_a_composition_by_the_meaning_that_is_lost_where_both_fire() -> None:
    flagged = {}
    for name in ("linear", "composition"):
        drawn = worlds.run(BY_NAME[name], 60, 40, np.random.default_rng(2))
        of_pair = drawn.over()
        against = of_pair.effect_b, of_pair.stranger_conjunction, of_pair.stranger_effect
        conjoined = above_strangers(of_pair.conjunction, *against) < 0.05
        flagged[name] = float((conjoined & (controls._lost(drawn, 40) < 0.05)).mean())
    assert flagged["linear"] >= 0.9
    assert flagged["composition"] <= 0.1


def test_an_and_of_one_nat_is_found_and_more_of_it_is_more_excess() -> None:
    one = found("and_1")
    assert (above_floor(one.excess, one.floor) < 0.05).mean() >= 0.95
    strengths = [found(f"and_{nats:g}", 10).excess.mean() for nats in worlds.AND_NATS]
    assert strengths == sorted(strengths)


def test_shuffling_one_unit_brings_the_excess_to_the_floor() -> None:
    cut = found("and_2", shuffle=True)
    assert (above_floor(cut.excess, cut.floor) < 0.05).mean() <= 0.15
    assert 0.6 < cut.excess.mean() / cut.floor.mean() < 1.6


def test_a_linearly_read_code_shows_only_in_the_conjunction() -> None:
    linear = found("linear")
    assert (above_floor(linear.excess, linear.floor) < 0.05).mean() <= 0.15
    assert linear.conjunction.mean() > 2 * linear.floor_conjunction.mean()
    assert linear.novel.mean() > 0.4


def test_a_magnitude_code_shows_in_the_step_between_low_and_high_values() -> None:
    figures = found("magnitude")
    assert (above_floor(figures.magnitude, figures.magnitude_floor) < 0.05).mean() >= 0.95
    on_off = found("and_1")  # an AND of firing alone says nothing in that step
    assert (above_floor(on_off.magnitude, on_off.magnitude_floor) < 0.05).mean() <= 0.15


def test_the_table_of_controls_has_every_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controls, "CONTEXTS", (3,))
    report = controls.measure(tmp_path, pairs=20)
    lines = json.loads((tmp_path / "table.json").read_text())["lines"]
    assert [line["world"] for line in lines] == [world.name for world in worlds.WORLDS]
    assert report.power() == {3: lines[7]["flagged"]}
    text = (tmp_path / "table.md").read_text()
    assert "two noisy detectors of one cause" in text
