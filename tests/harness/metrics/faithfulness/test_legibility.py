"""Units whose value a word decides, and units whose value nothing short says."""

from __future__ import annotations

import numpy as np
import pytest

from harness.metrics.faithfulness.legibility import (
    DESCRIPTIONS,
    Described,
    Pieces,
    contexts,
    describe,
    survives,
    with_other,
)
from harness.metrics.joint.pairs import Fired
from harness.systems.system import Site, System

from .conftest import Split, axis, silent, system, unit


def subject() -> tuple[System, Split, np.ndarray]:
    """A unit that fires on words 1 and 2, twice as strongly on the latter; its value on every token."""
    model = silent(layers=1, units=2)
    unit(model, 0, 0, axis(1) + 2 * axis(2), axis(6, 0.05))
    of, split = system(model), Split(0)
    codes = of.encode(split.all.input_ids)[of.sites[0]].codes
    return of, split, codes.dense()[:, 0].numpy().astype(float)


def made(
    site: Site, said: np.ndarray, value: np.ndarray, matched_dev: np.ndarray | None = None, unit: int = 0
) -> Described:
    matched = np.zeros(len(value), bool) if matched_dev is None else matched_dev
    return Described(site, unit, said, value, value, matched, matched)


def share(said: np.ndarray) -> float:
    """Of the unit's effect, with one description in the place of all."""
    of, split, value = subject()
    site: Site = of.sites[0]
    described = [made(site, np.stack([said] * len(DESCRIPTIONS)), value)]
    found = contexts(described, 200, np.random.default_rng(0))
    return float(survives(of, split, described, found)[0, 0])  # pyright: ignore[reportArgumentType]


def test_its_own_value_keeps_all_of_a_unit_and_silence_nothing() -> None:
    value = subject()[2]
    assert share(value) == pytest.approx(1, abs=1e-6)
    assert share(np.zeros_like(value)) == 0


def test_one_value_for_two_levels_keeps_what_least_squares_says() -> None:
    value = subject()[2]
    fires = value > 0
    usual = np.where(fires, value[fires].mean(), 0)
    left = 1 - ((usual - value) ** 2).sum() / (value**2).sum()
    assert 0.5 < left < 0.98
    assert share(usual) == pytest.approx(left, abs=0.02)  # the write is small, so effects grow with the value


def test_a_description_that_also_fires_elsewhere_keeps_less() -> None:
    value = subject()[2]
    everywhere = np.where(value > 0, value, value.max())
    assert share(everywhere) < 0.3


def test_a_description_that_is_worse_than_silence_is_below_nothing() -> None:
    value = subject()[2]
    assert -1 <= share(-value) < -0.9


def test_the_other_rule_is_one_that_matches_as_often_at_the_value_that_the_unit_has_there() -> None:
    site, n = Site(0, "mlp_out"), 40
    value = np.where(np.arange(n) < 10, 2.0, 0.0)
    rules = [np.arange(n) < 10, (np.arange(n) >= 5) & (np.arange(n) < 14), np.arange(n) < 39]
    described = [made(site, np.zeros((3, n)), value, rule, unit) for unit, rule in enumerate(rules)]
    said = with_other(described)[0].said[3]
    assert said[rules[1]] == pytest.approx(10 / 9)  # 5 of 9 tokens at 2
    assert (said[~rules[1]] == 0).all()


def test_contexts_stand_for_all_tokens_of_their_kind() -> None:
    value = np.repeat([1.0, 0.0, 0.0], [30, 50, 20])
    said = np.stack([np.repeat([1.0, 1.0, 0.0], [30, 50, 20])] * len(DESCRIPTIONS))
    said[1] = 0  # one description says nothing where the unit is silent
    found = contexts([made(Site(0, "mlp_out"), said, value)], 10, np.random.default_rng(0))
    fires = found.token < 30
    assert fires.sum() == 10
    assert found.weight[fires].sum(0).tolist() == pytest.approx([30] * 4)
    assert found.weight[~fires].sum(0).tolist() == pytest.approx([50, 0, 50, 50])
    assert (found.token < 80).all()  # where nobody says anything there is nothing to miss


@pytest.mark.parametrize("quiet", [0, 3, 40])
def test_a_unit_that_hardly_ever_is_silent_is_described_too(quiet: int) -> None:
    ids = np.arange(200) % 7
    text = np.empty(200, object)
    text[:] = [f" w{word}" for word in ids]
    words = Pieces(ids, np.arange(200) // 50, text, 50)
    token = np.arange(quiet, 200)
    value = np.ones(len(token), np.float32)
    fired = Fired(token, np.zeros(len(token), int), value, value, 200, 200, 1)
    found = describe(Site(0, "mlp_out"), 0, fired, words, fired, words, np.random.default_rng(0))
    assert (found.said[0] != 0).sum() == 200 - quiet
