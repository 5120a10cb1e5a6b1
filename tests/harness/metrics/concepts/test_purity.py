import numpy as np
import pytest

from harness.metrics.concepts.purity import explained, purity

from .conftest import activity_of, held_of


def world(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Five concepts that never hold together, each on 60 of 600 tokens in runs of three, all through 10 documents."""
    generator = np.random.default_rng(seed)
    which = np.repeat(generator.permutation(np.arange(200) % 10), 3)
    return which[:, None] == np.arange(5), generator.random(600)


def pure(dev: np.ndarray, dev_truth: np.ndarray, evaluation: np.ndarray, truth: np.ndarray) -> list[float]:
    return purity(activity_of(dev), held_of(dev_truth), activity_of(evaluation), held_of(truth)).precision.tolist()


def test_a_unit_of_one_concept_is_pure_and_needs_one():
    (dev, _), (truth, _) = world(0), world(1)
    assert pure(dev[:, :2] * 3.0, dev, truth[:, :2] * 3.0, truth) == [1, 1]
    found = explained(activity_of(dev[:, :2] * 3.0), held_of(dev), np.array([0, 1]))
    assert (found.needed.tolist(), found.f1.tolist()) == ([1, 1], [1, 1])


def test_a_unit_of_two_concepts_needs_two_and_is_not_pure():
    truth, _ = world()
    unit = (truth[:, :1] | truth[:, 1:2]) * 1.0
    assert pure(unit, truth, unit, truth) == [pytest.approx(0.5)]
    found = explained(activity_of(unit), held_of(truth), np.array([0]))
    assert (found.needed[0], found.f1[0]) == (2, 1)


def test_what_a_unit_means_is_chosen_on_dev():
    truth, _ = world()
    assert pure(truth[:, :1] * 1.0, truth, truth[:, 1:2] * 1.0, truth) == [0]


def test_what_holds_on_most_tokens_makes_no_unit_pure():
    truth, chance = world()
    nearly_always = np.concatenate([truth, chance[:, None] < 0.9], 1)
    unit = (chance[:, None] < 0.05) * 1.0
    assert pure(unit, nearly_always, unit, nearly_always)[0] < 0.4


def test_a_unit_that_fires_rarely_or_in_one_document_is_not_asked():
    truth, _ = world()
    values = np.zeros((600, 3))
    values[:540:60, 0] = 1  # nine times
    values[:600:60, 1] = -1  # ten times, once in each document
    values[:20, 2] = 1  # twenty times in one
    found = purity(activity_of(values), held_of(truth), activity_of(values), held_of(truth))
    assert found.units.tolist() == [1]


def test_a_unit_of_several_things_under_one_heading_is_not_pure():
    generator = np.random.default_rng(0)
    which = generator.integers(0, 20, 4000)
    truth = np.concatenate([which[:, None] == np.arange(8), which[:, None] < 8, which[:, None] == 30 + np.arange(2)], 1)
    truth[:, 9] = (which == 0) & (generator.random(4000) < 0.4)  # a pair: part of one concept, which is no heading
    values = np.stack([which == 0, (which == 1) | (which == 2) | (which == 3), truth[:, 9]], 1).astype(float)
    held = held_of(truth[:, :10])
    found = purity(activity_of(values), held, activity_of(values), held)
    assert found.precision[0] == 1
    assert found.precision[1] < 0.5
    assert found.precision[2] == 1
