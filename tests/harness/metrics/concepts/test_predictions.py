import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.metrics.concepts.detection import Detection
from harness.metrics.concepts.predictions import (
    best_units,
    expected_best,
    of_sure_units,
    score_predictions,
)

from .conftest import activity_of, held_of


def detection(chosen: np.ndarray, scored: np.ndarray, sure: np.ndarray | None = None) -> Detection:
    units, concepts = chosen.shape
    inf = np.full(chosen.shape, np.inf, np.float32)
    detectors = np.tile(2 * np.arange(units)[:, None], (1, concepts)).astype(np.int32)
    return Detection(chosen, scored, inf, detectors, inf if sure is None else sure)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 7), st.integers(1, 7))
def test_the_expected_best_is_the_mean_over_all_draws(seed: int, units: int, drawn: int):
    drawn = min(drawn, units)
    generator = np.random.default_rng(seed)
    chosen, scored = generator.random((2, units, 3)).astype(np.float32)
    found = expected_best(detection(chosen, scored), np.arange(units), drawn)
    draws = list(itertools.combinations(range(units), drawn))
    each = [[scored[max(draw, key=lambda unit: chosen[unit, c]), c] for c in range(3)] for draw in draws]
    assert np.allclose(found, np.mean(each, 0), atol=1e-6)
    reached = expected_best(detection(chosen, scored), np.arange(units), drawn, least=0.6)
    assert np.allclose(reached, np.mean(np.array(each) >= 0.6, 0), atol=1e-6)


def test_more_units_than_there_are_cannot_be_drawn():
    with pytest.raises(ValueError, match="5 units drawn from 4"):
        expected_best(detection(np.zeros((4, 1)), np.zeros((4, 1))), np.arange(4), 5)


def test_the_best_unit_is_chosen_on_dev():
    chosen = np.array([[0.1, 0.9], [0.5, 0.2], [0.9, 0.1]], np.float32)
    assert best_units(detection(chosen, 1 - chosen), np.array([0, 1])).tolist() == [1, 0]


def test_f1_by_hand():
    truth = np.zeros((20, 2), bool)
    truth[:4, 0] = True
    truth[10:, 1] = True
    found = score_predictions([np.array([0, 1, 7]), np.arange(10, 20)], held_of(truth, documents=4), 50)
    assert found.value.tolist() == [pytest.approx(2 * 2 / (3 + 4)), 1.0]
    assert np.allclose(found.replicates[found.replicates[:, 1] > 0, 1], 1)  # right on every document


def test_saying_nothing_scores_zero():
    truth = np.eye(4, dtype=bool)
    nothing = [np.zeros(0, np.int64)] * 4
    assert score_predictions(nothing, held_of(truth, documents=2), 10).value.tolist() == [0, 0, 0, 0]


def test_of_many_units_only_the_first_places_are_put_in_order_and_the_mean_is_the_same():
    generator = np.random.default_rng(0)
    chosen, scored = generator.random((2, 400, 3)).astype(np.float32)
    found = expected_best(detection(chosen, scored), np.arange(400), 100)
    draws = [generator.choice(400, 100, replace=False) for _ in range(4000)]
    each = [scored[draw[chosen[draw].argmax(0)], np.arange(3)] for draw in draws]
    assert np.allclose(found, np.mean(each, 0), atol=5 * np.std(each) / 4000**0.5)


def test_reconstruction_is_the_union_of_the_units_that_are_sure():
    values = np.zeros((10, 3))
    values[:4, 0] = 1
    values[3:6, 1] = [2, 2, 5]
    values[6:, 2] = 1
    sure = np.array([[1.0], [3.0], [np.inf]], np.float32)
    found = of_sure_units(detection(np.zeros((3, 1)), np.zeros((3, 1)), sure), activity_of(values), np.arange(3))
    assert found[0].tolist() == [0, 1, 2, 3, 5]
