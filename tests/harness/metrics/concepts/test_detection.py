"""The sweep against every threshold tried one by one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.metrics.concepts.detection import LEAST, SURE, detect

from .conftest import activity_of, held_of


def random_world(seed: int, tokens: int = 160, units: int = 5, concepts: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients of both signs with many equal values, and what holds, which some units know of."""
    generator = np.random.default_rng(seed)
    truth = generator.random((tokens, concepts)) < generator.uniform(0.05, 0.6, concepts)
    values = np.round(generator.normal(size=(tokens, units)) * 3)
    values[:, 0] += 4 * truth[:, 0]
    values[:, 1] -= 5 * truth[:, 1]
    values[generator.random(values.shape) < 0.3] = 0
    return values, truth


def slowly(values: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(F1, threshold, sure) of both signs of every unit and concept. `[2, units, concepts]`"""
    shape = (2, values.shape[1], truth.shape[1])
    f1, threshold, sure = np.zeros(shape), np.full(shape, np.inf), np.full(shape, np.inf)
    for sign in (0, 1):
        signed = -values if sign else values
        for unit in range(values.shape[1]):
            for concept in range(truth.shape[1]):
                for at in sorted({v for v in signed[:, unit] if v > 0}, reverse=True):
                    said = signed[:, unit] >= at
                    right = (said & truth[:, concept]).sum()
                    score = 2 * right / (said.sum() + truth[:, concept].sum())
                    if score > f1[sign, unit, concept] + 1e-9:
                        f1[sign, unit, concept], threshold[sign, unit, concept] = score, at
                    new = truth[said & (signed[:, unit] == at), concept].any()
                    if new and said.sum() >= LEAST and right >= SURE * said.sum():
                        sure[sign, unit, concept] = at
    return f1, threshold, sure


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_the_sweep_finds_what_trying_every_threshold_finds(seed: int):
    values, truth = random_world(seed)
    other_values, other = random_world(seed + 1)
    found = detect(activity_of(values), held_of(truth), activity_of(other_values), held_of(other))
    f1, threshold, sure = slowly(values, truth)
    negative = f1[1] > f1[0] + 1e-9
    assert np.allclose(found.chosen, f1.max(0), atol=1e-6)
    better = np.where(negative, threshold[1], threshold[0])
    assert np.array_equal(found.threshold, better)
    assert np.array_equal(found.sure, np.where(negative, sure[1], sure[0]))
    for unit in range(5):
        for concept in range(4):
            signed = -other_values[:, unit] if negative[unit, concept] else other_values[:, unit]
            said = signed >= better[unit, concept]
            score = 2 * (said & other[:, concept]).sum() / max(1, said.sum() + other[:, concept].sum())
            assert found.scored[unit, concept] == pytest.approx(score, abs=1e-6)


def test_a_unit_that_fires_exactly_on_a_concept_scores_one():
    truth = np.zeros((100, 2), bool)
    truth[10:30, 0] = True
    truth[50:55, 1] = True
    values = np.stack([truth[:, 0] * 2.0, truth[:, 1] * -0.1], 1)
    found = detect(activity_of(values), held_of(truth), activity_of(values), held_of(truth))
    assert np.allclose(found.scored, np.eye(2))
    assert found.detector.tolist()[1][1] == 3  # unit 1, negative


def test_scale_does_not_matter():
    values, truth = random_world(3)
    held = held_of(truth)
    one = detect(activity_of(values), held, activity_of(values), held)
    other = detect(activity_of(values * 64), held, activity_of(values * 64), held)
    assert np.array_equal(one.scored, other.scored)


def test_a_unit_that_is_silent_on_dev_is_never_chosen():
    values, truth = random_world(4)
    silent = values.copy()
    silent[:, 0] = 0
    found = detect(activity_of(silent), held_of(truth), activity_of(values), held_of(truth))
    assert (found.chosen[0] == 0).all()
    assert (found.scored[0] == 0).all()


def test_a_unit_is_sure_of_a_concept_only_after_several_documents():
    truth = np.zeros((200, 1), bool)
    truth[:60] = True  # in documents 0 to 2 of ten
    for tokens, sure in ((slice(0, 20), False), (slice(0, 60, 2), True)):
        values = np.zeros((200, 1))
        values[tokens] = 1
        held = held_of(truth)
        found = detect(activity_of(values), held, activity_of(values), held)
        assert np.isfinite(found.sure[0, 0]) == sure
