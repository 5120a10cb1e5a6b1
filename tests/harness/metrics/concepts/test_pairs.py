"""[10, 0] is a dog, [0, 10] a cat, and [10, 10] a bird: does the pair gap see it, and nothing else?"""

import numpy as np

from harness.metrics.concepts.detection import detect
from harness.metrics.concepts.pairs import PairScores, Switch, best, pair_scores

from .conftest import activity_of, held_of

DOG, CAT, BIRD = range(3)


def animals(seed: int, bird_share: float = 0.02, tokens: int = 4000) -> np.ndarray:
    """Which animal each token is, at most one. `[tokens, 3]` bool"""
    drawn = np.random.default_rng(seed).choice(4, tokens, p=[0.3, 0.3, bird_share, 0.4 - bird_share])
    return drawn[:, None] == np.arange(3)


def scores(dev: np.ndarray, evaluation: np.ndarray, truth: tuple[np.ndarray, np.ndarray]) -> PairScores:
    held = held_of(truth[0]), held_of(truth[1])
    activities = activity_of(dev), activity_of(evaluation)
    found = detect(activities[0], held[0], activities[1], held[1])
    return pair_scores(
        found, activities[0], held[0], activities[1], held[1], np.arange(dev.shape[1]), resamples=50, seed=0
    )


def noise(seed: int, tokens: int = 4000, units: int = 60) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.random((tokens, units)) * (generator.random((tokens, units)) < 0.1)


def in_combination(truth: np.ndarray, seed: int) -> np.ndarray:
    first, second = truth[:, DOG] | truth[:, BIRD], truth[:, CAT] | truth[:, BIRD]
    return np.concatenate([10.0 * np.stack([first, second], 1), noise(seed)], 1)


def test_a_bird_that_is_dog_and_cat_has_a_gap_near_one():
    truth = animals(1), animals(2)
    found = scores(in_combination(truth[0], 3), in_combination(truth[1], 4), truth)
    assert found.pair.value[BIRD] == 1
    assert found.single.value[BIRD] < 0.2
    assert found.pair.value[BIRD] - found.floor.value[BIRD] > 0.75
    # A dog is the first unit without the second: 0.97 alone, all of it together.
    assert found.pair.value[DOG] == 1


def test_units_of_their_own_leave_no_gap():
    truth = animals(1), animals(2)
    own = [np.concatenate([5.0 * t, noise(seed)], 1) for seed, t in enumerate(truth)]
    found = scores(own[0], own[1], truth)
    assert np.allclose(found.single.value, 1)
    assert np.allclose(found.pair.value - found.single.value, 0)
    assert np.allclose(found.floor.value - found.single.value, 0)


def test_noise_has_no_gap_above_its_floor():
    truth = animals(1, 0.1), animals(2, 0.1)
    gaps = []
    for seed in range(3):
        found = scores(noise(10 + seed), noise(20 + seed), truth)
        gaps.append((found.pair.value - found.floor.value).mean())
    assert abs(np.mean(gaps)) < 0.02


def test_either_of_two_units_is_found_by_or():
    truth = animals(1, 0.2), animals(2, 0.2)

    def split(t: np.ndarray, seed: int) -> np.ndarray:
        half = np.random.default_rng(seed).random(len(t)) < 0.5
        parts = np.stack([t[:, BIRD] & half, t[:, BIRD] & ~half], 1)
        return np.concatenate([1.0 * parts, noise(seed)], 1)

    found = scores(split(truth[0], 5), split(truth[1], 6), truth)
    assert found.pair.value[BIRD] == 1
    assert found.single.value[BIRD] < 0.75


def test_two_thresholds_of_one_unit_are_no_pair():
    """A unit whose middle level is the concept: a band of it would tell all, but it is one unit."""
    truth = animals(1, 0.2)
    levels = 1.0 * truth[:, DOG] + 2.0 * truth[:, BIRD] + 3.0 * truth[:, CAT]
    activity = activity_of(np.stack([levels, levels], 1))
    on = np.flatnonzero(truth[:, BIRD])
    low, high, high_of_another = Switch(0, 2.0), Switch(0, 3.0), Switch(2, 3.0)
    assert best(activity, [low], [high], on) is None
    of_two = best(activity, [low], [high, high_of_another], on)
    assert of_two is not None
    assert (of_two.f1, of_two.how, of_two.second) == (1, "and not", high_of_another)
