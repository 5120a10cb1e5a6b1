from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from harness.metrics.joint.interaction import PaddedContexts, interaction, solve

OUTCOMES, PAIRS = 6, 6


def world(
    contexts: int, seed: int, *, together: float = 0.0, topic: float = 0.0, topic_known: bool = True
) -> PaddedContexts:
    """Pairs that add up, each in a curve of its own; `together`: and a conjunction; `topic`: and a topic, on which both
    fire, that adds to the outcomes by itself and stands in the offset where it is known."""
    rng, fixed = np.random.default_rng(seed), np.random.default_rng(99)
    on = rng.random((PAIRS, contexts)) < 0.5
    p = np.where(on, 0.9, 0.3)
    a, b = ((rng.random(p.shape) < p) * rng.uniform(0.5, 1.5, p.shape) for _ in range(2))
    both = (a > 0) & (b > 0)
    say = fixed.standard_normal((5, PAIRS, 1, OUTCOMES))
    own = (a**2)[..., None] * say[0] + np.sqrt(b)[..., None] * say[1]
    subject = topic * on[..., None] * say[3]
    z = own + subject + together * both[..., None] * say[2]
    y = (z + rng.gumbel(size=z.shape)).argmax(-1)
    offset = subject if topic_known else np.zeros_like(subject)
    float32 = lambda part: torch.from_numpy(part.astype(np.float32))  # noqa: E731
    fold = torch.from_numpy(rng.integers(0, 2, a.shape))
    return PaddedContexts(float32(a), float32(b), torch.from_numpy(y), float32(offset), torch.ones(a.shape), fold)


def gain(**planted: float | bool) -> float:
    dev, test = world(1500, 1, **planted), world(1500, 2, **planted)  # pyright: ignore[reportArgumentType]
    return float(interaction(dev, test).gain.sum() / test.both.sum())


def test_the_solver_meets_the_first_order_conditions() -> None:
    generator = torch.Generator().manual_seed(0)
    x, offset = torch.randn(3, 80, 4, generator=generator), torch.randn(3, 80, OUTCOMES, generator=generator)
    y = torch.randint(0, OUTCOMES, (3, 80), generator=generator)
    weight = (torch.rand(3, 80, generator=generator) < 0.8).float()
    ridge = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    w = solve(x, offset, y, weight, ridge)
    off = torch.nn.functional.one_hot(y, OUTCOMES) - (offset + x @ w).softmax(-1)
    slope = (x * weight[..., None]).mT @ off - ridge[..., None] * w
    start = (x * weight[..., None]).mT @ (torch.nn.functional.one_hot(y, OUTCOMES) - offset.softmax(-1))
    assert slope.abs().max() < 0.01 * start.abs().max()


def test_units_that_add_up_gain_nothing_and_a_conjunction_what_it_is_worth() -> None:
    assert abs(gain()) < 0.003
    weak, strong = gain(together=1.0), gain(together=2.0)
    assert 0.005 < weak < strong
    assert strong > 0.03


def test_a_shared_topic_gains_nothing_where_it_is_known_and_something_where_it_is_not() -> None:
    assert abs(gain(topic=3.0)) < 0.003
    assert gain(topic=3.0, topic_known=False) > 0.005


def test_an_offset_that_is_off_everywhere_is_no_gain() -> None:
    dev, test = (
        replace(part, offset=part.offset + torch.arange(OUTCOMES) / 2) for part in (world(1500, 1), world(1500, 2))
    )
    assert abs(float(interaction(dev, test).gain.sum() / test.both.sum())) < 0.003


def test_shuffling_one_unit_takes_the_gain_away() -> None:
    dev, test = world(1500, 1, together=2.0), world(1500, 2, together=2.0)
    generator = torch.Generator().manual_seed(0)
    shuffled = [replace(part, b=part.b[:, torch.randperm(1500, generator=generator)]) for part in (dev, test)]
    found = interaction(*shuffled)
    assert abs(float(found.gain.sum() / shuffled[1].both.sum())) < 0.003


def test_padding_and_the_order_of_pairs_change_nothing() -> None:
    dev, test = world(300, 1, together=2.0), world(300, 2, together=2.0)
    found = interaction(dev, test)
    order = torch.tensor([3, 1, 0, 5, 2, 4])

    def moved(part: PaddedContexts) -> PaddedContexts:
        padded = {name: torch.cat([value, value[:, :50]], 1)[order] for name, value in vars(part).items()}
        padded["weight"][:, 300:] = 0
        padded["a"][:, 300:] = padded["b"][:, 300:] = 0
        return PaddedContexts(**padded)

    again = interaction(moved(dev), moved(test))
    torch.testing.assert_close(again.gain[:, :300], found.gain[order], rtol=1e-3, atol=1e-4)
    assert not again.gain[:, 300:].any()
    assert torch.equal(again.penalty, found.penalty[order])


def test_a_pair_that_saves_too_little_on_dev_has_no_product_and_no_gain() -> None:
    found = interaction(world(300, 1), world(300, 2))
    unused = torch.isinf(found.penalty)
    assert unused.float().mean() > 0.5
    assert not found.gain[unused].any()
