"""Learners side by side: the small ones at once on a core each, and none the worse for its company."""

import threading

import pytest
import torch

from saes import learner as module
from saes.learner import Learner, SideBySide
from saes.topk import TopKConfig
from saes.training_dictionary import Standardisation


def learner(n_latents=24, site="s", seed=0, d=16):
    plain = Standardisation(torch.zeros(d), 1.0)
    return Learner.start(site, TopKConfig(n_latents=n_latents, k=3, dead_after_tokens=200), seed, plain, plain)


def take_steps(one, n=10):
    """On batches large enough for torch to share them between cores where it may."""
    g = torch.Generator().manual_seed(3)
    for _ in range(n):
        x = torch.randn(2048, one.module.d_in, generator=g)
        result = one.module.step(x, x)
        one.backward(result)
        one.update(result, 1.0)
    return one.module.state_dict()


def test_small_ones_compute_on_one_core_and_large_ones_on_all(two_threads, monkeypatch):
    monkeypatch.setattr(module, "SMALL", 16 * 24)
    learners = {"a": learner(24), "large": learner(25), "b": learner(24)}
    with SideBySide() as side_by_side:
        seen = side_by_side.each(learners, lambda *_: (torch.get_num_threads(), threading.current_thread().name))
        assert list(seen) == ["a", "large", "b"]
        assert [threads for threads, _ in seen.values()] == [1, 2, 1]
        assert seen["large"][1] == threading.current_thread().name
        assert all(seen[name][1].startswith("learner") for name in "ab")
    assert torch.get_num_threads() == 2
    later = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert later == [2]  # what the pool's threads set for themselves is not the default of others


def test_at_once_means_at_once(two_threads):
    both = threading.Barrier(2, timeout=30)
    with SideBySide() as side_by_side:  # each waits for the other: one after the other they would never end
        places = side_by_side.each({"a": learner(), "b": learner()}, lambda *_: both.wait())
    assert sorted(places.values()) == [0, 1]


def test_company_does_not_change_a_dictionary(two_threads):
    size = {"n_latents": 512, "d": 128}
    with SideBySide() as side_by_side:
        alone = side_by_side.each({"a": learner(**size)}, lambda _, one: take_steps(one))["a"]
        names = ["x", "a", "y", "z"]
        among = side_by_side.each(
            {n: learner(seed=0 if n == "a" else 7, **size) for n in names}, lambda _, one: take_steps(one)
        )
    torch.set_num_threads(1)  # nor does the number of threads
    with SideBySide() as side_by_side:
        one_thread = side_by_side.each({"a": learner(**size)}, lambda _, one: take_steps(one))["a"]
    for key, value in alone.items():
        assert torch.equal(value, among["a"][key]), key
        assert torch.equal(value, one_thread[key]), key
    assert not torch.equal(alone["W_dec"], among["x"]["W_dec"])


def test_what_one_raises_is_raised(two_threads):
    def fail(name, _):
        if name == "b":
            raise ValueError("b fails")

    with SideBySide() as side_by_side, pytest.raises(ValueError, match="b fails"):
        side_by_side.each({name: learner() for name in "abc"}, fail)


def test_those_of_one_width_at_one_site_start_equal_and_others_do_not():
    options = ({}, {}, {"site": "other"}, {"seed": 1})
    W = [learner(**some).module.W_dec.detach() for some in options]
    assert torch.equal(W[0], W[1])
    assert not any(torch.equal(W[0], other) for other in W[2:])
