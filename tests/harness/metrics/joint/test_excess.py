import math

import numpy as np
import pytest
import torch

from harness.metrics.joint import excess


def logits(seed: int, contexts: int = 40, outcomes: int = 12) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    base, a, b = (2 * torch.randn(contexts, outcomes, generator=generator, dtype=torch.float64) for _ in range(3))
    return base + a + b, base + a, base + b, base


def test_additive_logits_have_no_excess_whatever_is_added_to_a_row() -> None:
    z11, z10, z01, z00 = logits(0)
    shifts = torch.randn(4, 40, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = excess.excess(z11 + shifts[0], z10 + shifts[1], z01 + shifts[2], z00 + shifts[3])
    assert found.max() < 1e-12


def test_effects_of_a_thousandth_in_float32_logits_are_no_rounding() -> None:
    rng = torch.Generator().manual_seed(0)
    rest = 3 * torch.randn(50, 2048, generator=rng, dtype=torch.float64)
    a, b = (1e-3 * torch.randn(50, 2048, generator=rng, dtype=torch.float64) for _ in range(2))
    exact = [rest + a + b, rest + a, rest + b, rest]
    rounded = [z.float() for z in exact]
    assert float(excess.excess(*rounded).max()) < excess.RESOLUTION / 100
    assert excess.effect(rounded[0], rounded[3]).numpy() == pytest.approx(excess.effect(exact[0], exact[3]), rel=1e-3)


def test_excess_and_effect_by_hand() -> None:
    # Both units on: outcome 0 with odds 3 to 1. Each alone and neither: even. The sum of the parts says even.
    both, even = torch.tensor([[math.log(3.0), 0.0]]), torch.zeros(1, 2)
    bits = 0.75 * math.log2(1.5) + 0.25 * math.log2(0.5)
    assert excess.excess(both, even, even, even).item() == pytest.approx(bits, rel=1e-6)
    assert excess.effect(both, even).item() == pytest.approx(bits, rel=1e-6)
    assert excess.effect(even, even).item() == 0


def test_conjunction_is_the_minimum_over_a_fine_grid() -> None:
    z11, z10, z01, z00 = logits(2, contexts=12)
    found, weights = excess.conjunction(z11, z10, z01, z00)
    torch.testing.assert_close(weights.sum(1), torch.ones(12, dtype=torch.float64))
    assert weights.min() >= 0
    p, parts = z11.softmax(-1), torch.stack([z.softmax(-1) for z in (z10, z01, z00)], 1)
    best = torch.full((12,), math.inf, dtype=torch.float64)
    for first in np.linspace(0, 1, 101):
        for second in np.linspace(0, 1 - first, 101):
            w = torch.tensor([first, second, max(0.0, 1 - first - second)], dtype=torch.float64)
            best = torch.minimum(best, (p * (p.log() - (w @ parts).log())).sum(-1) / math.log(2))
    assert (found <= best + 1e-6).all()
    assert (found >= best - 1e-2).all()
    taken = (p * (p.log() - (weights[:, None] @ parts)[:, 0].log())).sum(-1) / math.log(2)
    torch.testing.assert_close(found, taken, atol=1e-9, rtol=0)


def test_conjunction_of_a_mixture_is_zero_also_with_many_outcomes() -> None:
    generator = torch.Generator().manual_seed(3)
    parts = (3 * torch.randn(3, 30, 1000, generator=generator)).softmax(-1)
    weights = torch.rand(30, 3, generator=generator)
    weights = weights / weights.sum(1, keepdim=True)
    weights[:5] = torch.tensor([1.0, 0.0, 0.0])
    mixture = torch.einsum("nk,knv->nv", weights, parts)
    found, fitted = excess.conjunction(mixture.log(), *(part.log() for part in parts))
    assert found.max() < 1e-4
    torch.testing.assert_close(fitted, weights.double(), atol=5e-3, rtol=0)


def test_a_linearly_read_code_shows_in_conjunction_and_not_in_excess() -> None:
    # dog = A − B, cat = B − A, bird = ¾(A + B): together they say a third thing, and the logits add.
    a, b = torch.tensor([[10.0, -10.0, 7.5]]), torch.tensor([[-10.0, 10.0, 7.5]])
    z = (a + b, a, b, torch.zeros(1, 3))
    found = excess.figures(*z)
    assert found.excess.item() < 1e-6
    assert found.conjunction.item() > 1
    assert found.novel.item() == 1
    agreeing = excess.figures(2 * a, a, a, torch.zeros(1, 3))
    assert agreeing.novel.item() == 0


def test_a_pair_like_its_random_directions_is_flagged_as_often_as_the_level_says() -> None:
    rng = np.random.default_rng(0)
    flagged = []
    for _ in range(60):
        level = rng.normal(0, 2, size=(50, 1))  # pairs differ in strength, which must not matter
        draws = np.exp(level + rng.gamma(1, 1, size=(50, 4)))  # skewed, as real ones are
        flagged.append(excess.above_floor(draws[:, 0], draws[:, 1:]) < 0.05)
    assert 0.03 < np.mean(flagged) < 0.06
    floors = np.exp(rng.normal(0, 0.7, size=(50, 3)))
    assert (excess.above_floor(floors.mean(1) * 30, floors) < 0.05).mean() > 0.95
    assert (excess.above_floor(np.full(9, 1e-13), np.zeros((9, 3))) > 0.05).all()
    with pytest.raises(ValueError, match="at least 3 draws"):
        excess.above_floor(np.ones(3), np.ones((3, 2)))


def test_unequal_logits_are_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        excess.excess(torch.zeros(2, 3), torch.zeros(2, 4), torch.zeros(2, 3), torch.zeros(2, 3))
