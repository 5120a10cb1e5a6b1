import numpy as np
import pytest
import torch

from harness.metrics.reconstruction import FIGURES, token_columns


def figures(x: torch.Tensor, hat: torch.Tensor) -> dict[str, float]:
    sums = token_columns(x, hat).sum(0, keepdim=True).numpy()
    return {name: float(formula(sums)[0]) for name, (formula, _) in FIGURES.items()}


def test_the_figures_by_hand() -> None:
    x = torch.tensor([[3.0, 4.0], [0.0, 2.0]], dtype=torch.float64)
    hat = torch.tensor([[3.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    found = figures(x, hat)
    # errors 16 + 1; mean (1.5, 3), deviations 2·(2.25 + 1); squares 25 + 4; cosines 3/5 and 1; ratios 3/5 and 1/2
    assert found["explained_variance"] == pytest.approx(1 - 17 / 6.5)
    assert found["normalised_mse"] == pytest.approx(17 / 29)
    assert found["cosine"] == pytest.approx(0.8)
    assert found["norm_ratio"] == pytest.approx(0.55)


def test_explained_variance_does_not_move_with_scale_and_shift() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(500, 8, generator=generator, dtype=torch.float64)
    hat = x + 0.3 * torch.randn(500, 8, generator=generator, dtype=torch.float64)
    base = figures(x, hat)["explained_variance"]
    assert base == pytest.approx(1 - 0.09, abs=0.02)
    for scale, shift in ((30.0, 0.0), (1.0, 10.0), (0.01, -3.0)):
        assert figures(scale * x + shift, scale * hat + shift)["explained_variance"] == pytest.approx(base, rel=1e-6)


def test_predicting_the_mean_explains_nothing() -> None:
    x = torch.randn(100, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert figures(x, x.mean(0).expand_as(x))["explained_variance"] == pytest.approx(0, abs=1e-12)
    assert np.isclose(figures(x, x)["explained_variance"], 1)
