import numpy as np
import pytest

from harness.metrics.concepts.purity import purity

from .conftest import activity_of, held_of


def world() -> tuple[np.ndarray, np.ndarray]:
    """Five concepts that never hold together, each on 60 of 600 tokens in runs of three."""
    generator = np.random.default_rng(0)
    which = np.repeat(generator.permutation(np.arange(200) % 10), 3)
    return which[:, None] == np.arange(5), generator.random(600)


def test_a_unit_of_one_concept_is_pure_and_needs_one():
    truth, _ = world()
    found = purity(activity_of(truth[:, :2] * 3.0), held_of(truth))
    assert found.precision.tolist() == [1, 1]
    assert found.needed.tolist() == [1, 1]
    assert found.explained.tolist() == [1, 1]


def test_a_unit_of_two_concepts_needs_two_and_is_not_pure():
    truth, _ = world()
    found = purity(activity_of((truth[:, :1] | truth[:, 1:2]) * 1.0), held_of(truth))
    assert found.precision[0] == pytest.approx(0.5)
    assert found.needed[0] == 2
    assert found.explained[0] == 1


def test_what_holds_on_most_tokens_makes_no_unit_pure():
    truth, chance = world()
    nearly_always = np.concatenate([truth, chance[:, None] < 0.9], 1)
    found = purity(activity_of((chance[:, None] < 0.05) * 1.0), held_of(nearly_always))
    assert found.precision[0] < 0.4


def test_a_unit_that_fires_rarely_is_not_asked():
    truth, _ = world()
    values = np.zeros((600, 2))
    values[:9, 0] = 1
    values[:10, 1] = -1
    assert len(purity(activity_of(values), held_of(truth)).precision) == 1
