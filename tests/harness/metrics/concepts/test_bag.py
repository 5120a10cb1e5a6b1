"""What words alone tell."""

import numpy as np

from harness.metrics.concepts.bag import BAGS, bag_of_tokens
from harness.metrics.concepts.bag import _bag as bag_at  # pyright: ignore[reportPrivateUsage]
from harness.metrics.concepts.predictions import score_predictions

from .conftest import held_of


def world(seed: int, tokens: int = 6000) -> tuple[np.ndarray, np.ndarray]:
    """A concept that the token is, one that a near word tells, and one that nothing tells."""
    generator = np.random.default_rng(seed)
    ids = generator.integers(0, 20, tokens)
    place, after = np.arange(tokens), np.zeros(tokens, bool)
    for back in range(1, BAGS[3][1] + 1):
        near = place[place % 100 >= back]
        after[near] |= ids[near - back] == 7
    return ids, np.stack([ids == 3, after, generator.random(tokens) < 0.2], 1)


def test_a_bag_tells_a_word_and_what_a_word_before_tells():
    (ids_dev, dev), (ids, truth) = world(1), world(2)
    every = np.arange(6000)
    found = bag_of_tokens(ids_dev, held_of(dev), ids, held_of(truth), 100, every, every)
    f1 = score_predictions(found.said, held_of(truth), 10).value
    assert f1[0] > 0.97
    assert found.auroc[1] > 0.99
    assert f1[1] > 0.97  # bags are weighed, so that what is far does not drown what is near
    assert abs(found.auroc[2] - 0.5) < 0.05


def test_tokens_that_do_not_count_are_words_all_the_same():
    (ids_dev, dev), (ids, truth) = world(1), world(2)
    odd = np.arange(6000)[1::2]
    found = bag_of_tokens(ids_dev, held_of(dev[odd]), ids, held_of(truth[odd]), 100, odd, odd)
    assert found.auroc[1] > 0.99


def test_a_bag_does_not_reach_over_the_edge_of_a_sequence():
    ids = np.zeros(8, np.int64)
    ids[3] = 1
    assert bag_at(ids, 4, 2, (1, 3)).toarray()[4:, 1].sum() == 0
    assert bag_at(ids, 4, 2, (1, 2)).toarray()[2].tolist() == [2, 0]
    assert bag_at(ids, 4, 2, (1, 1)).toarray()[:, 0].tolist() == [0, 1, 1, 1, 0, 1, 1, 1]
