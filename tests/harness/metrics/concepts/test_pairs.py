"""[10, 0] is a dog, [0, 10] a cat, and [10, 10] a bird: does the pair gap see it, and nothing else?"""

from dataclasses import dataclass

import numpy as np
import pytest

from harness.metrics.concepts.detection import detect
from harness.metrics.concepts.pairs import best_pairs, pairs
from harness.metrics.concepts.predictions import score_predictions

from .conftest import activity_of, held_of

DOG, CAT, BIRD = range(3)


def animals(seed: int, bird_share: float = 0.02, tokens: int = 4000) -> np.ndarray:
    """Which animal each token is, at most one. `[tokens, 3]` bool"""
    drawn = np.random.default_rng(seed).choice(4, tokens, p=[0.3, 0.3, bird_share, 0.4 - bird_share])
    return drawn[:, None] == np.arange(3)


@dataclass(frozen=True)
class Told:
    """F1 of every concept on eval, by one unit, by AND or AND NOT of two, by OR."""

    single: np.ndarray
    joint: np.ndarray
    split: np.ndarray


def told(dev: np.ndarray, evaluation: np.ndarray, truth: tuple[np.ndarray, np.ndarray]) -> Told:
    held = held_of(truth[0]), held_of(truth[1])
    activities = activity_of(dev), activity_of(evaluation)
    found = detect(activities[0], held[0], activities[1], held[1])
    said = pairs(found, activities[0], held[0], activities[1], np.arange(dev.shape[1]))
    return Told(*(score_predictions(one, held[1], 10).value for one in (said.single, said.joint, said.split)))


def noise(seed: int, tokens: int = 4000, units: int = 60) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.random((tokens, units)) * (generator.random((tokens, units)) < 0.1)


def in_combination(truth: np.ndarray, seed: int) -> np.ndarray:
    first, second = truth[:, DOG] | truth[:, BIRD], truth[:, CAT] | truth[:, BIRD]
    return np.concatenate([10.0 * np.stack([first, second], 1), noise(seed)], 1)


def test_a_bird_that_is_dog_and_cat_has_a_gap_near_one():
    truth = animals(1), animals(2)
    found = told(in_combination(truth[0], 3), in_combination(truth[1], 4), truth)
    assert found.joint[BIRD] == 1
    assert found.single[BIRD] < 0.2
    # A dog is the first unit without the second: 0.97 alone, all of it together.
    assert found.joint[DOG] == 1


def test_idle_units_do_not_close_the_gap():
    truth = animals(1), animals(2)
    few = told(in_combination(truth[0], 3), in_combination(truth[1], 4), truth)
    idle = [
        np.concatenate([in_combination(t, s), noise(s + 50, units=600)], 1) for t, s in zip(truth, (3, 4), strict=True)
    ]
    many = told(idle[0], idle[1], truth)
    assert many.joint[BIRD] - many.single[BIRD] >= few.joint[BIRD] - few.single[BIRD] - 0.01


def test_a_unit_that_is_always_on_hides_as_much_as_one_that_falls_silent():
    """P and not Q, by units that are silent elsewhere and by units that only rise."""
    generator = np.random.default_rng(5)
    world = [generator.random((4000, 2)) < 0.3 for _ in range(2)]
    truth = [np.stack([w[:, 0] & ~w[:, 1]], 1) for w in world]
    silent = told(1.0 * world[0], 1.0 * world[1], (truth[0], truth[1]))
    on = told(world[0] + 0.1, world[1] + 0.1, (truth[0], truth[1]))
    falling = told(0.1 + ~world[0], 0.1 + ~world[1], (truth[0], truth[1]))
    assert silent.joint[0] == on.joint[0] == falling.joint[0] == 1
    assert on.single[0] == silent.single[0] < 0.85


def test_units_of_their_own_leave_no_gap():
    truth = animals(1), animals(2)
    own = [np.concatenate([5.0 * t, noise(seed)], 1) for seed, t in enumerate(truth)]
    found = told(own[0], own[1], truth)
    assert np.allclose(found.single, 1)
    assert np.allclose(found.joint, 1)
    assert np.allclose(found.split, 1)


def test_noise_has_no_gap_on_other_text():
    truth = animals(1, 0.1), animals(2, 0.1)
    gaps = []
    for seed in range(3):
        found = told(noise(10 + seed), noise(20 + seed), truth)
        gaps.append((found.joint - found.single).mean())
    assert np.mean(gaps) < 0.02


def test_either_of_two_units_is_a_split_and_no_conjunction():
    truth = animals(1, 0.2), animals(2, 0.2)

    def split(t: np.ndarray, seed: int) -> np.ndarray:
        half = np.random.default_rng(seed).random(len(t)) < 0.5
        parts = np.stack([t[:, BIRD] & half, t[:, BIRD] & ~half], 1)
        return np.concatenate([1.0 * parts, noise(seed)], 1)

    found = told(split(truth[0], 5), split(truth[1], 6), truth)
    assert found.split[BIRD] == 1
    assert found.single[BIRD] < 0.75
    assert found.joint[BIRD] < 0.75


def test_two_thresholds_of_one_unit_are_no_pair():
    """A unit whose middle level is the concept: a band of it would tell all, but it is one unit."""
    truth = animals(1, 0.2)
    values = np.stack([1.0 * truth[:, DOG] + 2.0 * truth[:, BIRD] + 3.0 * truth[:, CAT], noise(3)[:, 0]], 1)
    activity, held = activity_of(values), held_of(truth)
    detection = detect(activity, held, activity, held)
    joint, _ = best_pairs(detection, activity, held, np.arange(2))[BIRD]
    assert joint is not None
    assert joint.f1 < 0.9
    twice, _ = best_pairs(
        detect(activity_of(values[:, [0, 0]]), held, activity_of(values[:, [0, 0]]), held),
        activity_of(values[:, [0, 0]]),
        held,
        np.arange(2),
    )[BIRD]
    assert twice is not None
    assert twice.f1 == 1


@pytest.mark.parametrize("seed", range(6))
def test_the_search_finds_what_trying_every_partner_finds(seed: int):
    """Small enough that every value is a level, and the best first unit is among those tried."""
    generator = np.random.default_rng(seed)
    truth = generator.random((120, 2)) < 0.3
    values = generator.integers(-2, 3, (120, 4)) + 2.0 * (truth @ generator.random((2, 4)) > 0.6)
    activity, held = activity_of(values), held_of(truth)
    found = best_pairs(detect(activity, held, activity, held), activity, held, np.arange(4))
    for concept, (joint, split) in enumerate(found):
        assert joint is not None
        assert split is not None
        for one in (joint, split):
            said = np.zeros(120, bool)
            said[one.tokens(activity)] = True
            assert one.f1 == pytest.approx(
                2 * (said & truth[:, concept]).sum() / (said.sum() + truth[:, concept].sum())
            )
        # From the first that was chosen, no partner does better.
        sets = [
            values[:, u] * sign >= at
            for u in range(4)
            for sign in (1, -1)
            for at in np.unique(np.abs(values[:, u]))
            if at > 0
        ]
        units = [u for u in range(4) for _ in (1, -1) for at in np.unique(np.abs(values[:, u])) if at > 0]
        first = values[:, joint.second.detector // 2] * (1 - 2 * (joint.second.detector % 2)) >= joint.second.threshold
        tried = [
            2 * (way & truth[:, concept]).sum() / (way.sum() + truth[:, concept].sum())
            for other, unit in zip(sets, units, strict=True)
            if unit != joint.second.detector // 2
            for way in (first & other, first & ~other, other & ~first)
        ]
        assert joint.f1 >= max(tried) - 1e-9
