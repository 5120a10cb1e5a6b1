"""Strangers: never on a token with A, like B in what they say alone and in their angle to A; and what is compared."""

from __future__ import annotations

import numpy as np
import pytest

from harness.metrics.joint import strangers
from harness.metrics.joint.pairs import Chosen, Fired, PairContexts, Stratum, together_at
from harness.metrics.joint.strangers import above_strangers, drawn, log_ratios, matched, trimmed_mean
from harness.systems.system import Site

SITE = Site(0, "mlp_out")


def fired(dense: np.ndarray) -> Fired:
    token, unit = dense.nonzero()
    value = dense[token, unit].astype(np.float32)
    return Fired(token, unit, value, np.abs(value), len(dense), *dense.shape)


def chosen(*units: tuple[int, int]) -> Chosen:
    none = PairContexts(*(np.zeros(0) for _ in range(6)))
    return Chosen(Stratum(SITE, SITE), np.array(units), none, 1.0, 1)


def test_a_stranger_fires_and_never_on_a_token_with_a() -> None:
    rng = np.random.default_rng(0)
    dense = (rng.random((400, 12)) < 0.3).astype(float)
    dense[dense[:, 0] > 0, 6:] = 0  # units 6 to 11 are strangers to unit 0
    dense[:, 11] = 0  # and one of them never fires
    found = drawn(chosen((0, 1)), {SITE: fired(dense[:200])}, {SITE: fired(dense[200:])}, rng)
    assert sorted(found[0]) == [-1] * (strangers.DRAWN - 5) + [6, 7, 8, 9, 10]


def test_one_meeting_on_either_split_makes_a_unit_no_stranger() -> None:
    dense = np.zeros((20, 4))
    dense[:10, 0], dense[10:, 1:] = 1, 1
    dense[0, 1] = 1
    for split in range(2):
        dev, test = dense.copy(), dense.copy()
        (dev, test)[split][1, 2] = 1
        found = drawn(chosen((0, 1)), {SITE: fired(dev)}, {SITE: fired(test)}, np.random.default_rng(0))
        assert set(found[0]) == {-1, 3}
    assert together_at(fired(dense), fired(dense), 0).tolist() == [0, 1]


def test_the_nearest_in_effect_and_angle_are_taken_and_none_that_is_far_counts_as_like_b() -> None:
    effects = np.array([[8.0, 1.1, 0.9, 1.0, np.nan], [1.0, 1.0, 1.0, 9.0, 9.0]])
    cosines = np.array([[0.0, 0.0, 0.1, 0.9, np.nan], [0.0, 0.0, 0.6, 0.0, 0.0]])
    places, near = matched(np.ones(2), np.zeros(2), effects, cosines)
    assert set(places[0, :2]) == {1, 2}
    assert near.tolist() == [False, False]  # a third that is like B exists for neither
    places, near = matched(np.ones(1), np.zeros(1), np.array([[1.5, 1.9, 0.6, 40.0]]), np.zeros((1, 4)))
    assert sorted(places[0]) == [0, 1, 2]
    assert near.all()


def test_figures_are_per_bit_that_the_unit_says_alone_so_a_larger_effect_is_no_more_excess() -> None:
    rng = np.random.default_rng(1)
    effects = rng.uniform(0.5, 2, (30, strangers.KEPT))
    others = effects * rng.lognormal(0, 0.2, effects.shape)
    effect_b = rng.uniform(0.5, 2, 30)
    own = log_ratios(0.8 * effect_b, effect_b, others, effects)
    louder = log_ratios(10 * 0.8 * effect_b, 10 * effect_b, others, effects)
    np.testing.assert_allclose(own, louder, atol=1e-6)
    np.testing.assert_allclose(
        above_strangers(0.8 * effect_b, effect_b, others, effects),
        above_strangers(8 * effect_b, 10 * effect_b, 10 * others, 10 * effects),
    )


def test_a_pair_that_is_one_more_stranger_is_flagged_at_the_level_and_one_with_ten_times_as_much_is_found() -> None:
    rng = np.random.default_rng(2)
    size = rng.lognormal(0, 1, (400, 1))  # pairs differ
    figures = size * rng.lognormal(0, 0.5, (400, 1 + strangers.KEPT))
    ones = np.ones((400, strangers.KEPT))
    p = above_strangers(figures[:, 0], ones[:, 0], figures[:, 1:], ones)
    assert (p < 0.05).mean() < 0.08
    assert (above_strangers(30 * figures[:, 0], ones[:, 0], figures[:, 1:], ones) < 0.05).mean() > 0.95


@pytest.mark.parametrize("outlier", [1e9, -1e9])
def test_a_few_pairs_do_not_carry_the_trimmed_mean(outlier: float) -> None:
    values = np.array([*np.arange(1.0, 21.0), np.nan])
    assert trimmed_mean(values) == pytest.approx(10.5)
    values[0] = outlier
    assert 10 <= trimmed_mean(values) <= 12
