"""Probes against scikit-learn, and on worlds where the answer is known."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, roc_auc_score

from harness.metrics.concepts import probes

from .conftest import activity_of, held_of


def linear_world(seed: int, tokens: int = 3000, d: int = 6) -> tuple[torch.Tensor, np.ndarray]:
    """Three concepts: one that x tells exactly, one with noise, one that x knows nothing of."""
    generator = np.random.default_rng(seed)
    directions = np.random.default_rng(99).normal(size=(d, 2))
    x = generator.normal(size=(tokens, d)) * np.arange(1, d + 1) + 3
    scores = (x - 3) / np.arange(1, d + 1) @ directions
    noisy = scores[:, 1] + generator.normal(size=tokens) * 2 > 1
    truth = np.stack([scores[:, 0] > 1.5, noisy, generator.random(tokens) < 0.3], 1)
    return torch.from_numpy(x).float(), truth


def test_a_linear_probe_is_the_logistic_regression_of_scikit_learn():
    (x_dev, dev), (x, truth) = linear_world(1), linear_world(2)
    found = probes.linear_probe(x_dev, held_of(dev), x, held_of(truth))
    inputs = (x_dev - x_dev.mean(0)) / x_dev.std(0)
    for concept in range(3):
        theirs = LogisticRegression(C=1 / (probes.DECAY * len(dev)), tol=1e-8, max_iter=2000)
        theirs.fit(inputs.numpy(), dev[:, concept])
        scores = theirs.decision_function(((x - x_dev.mean(0)) / x_dev.std(0)).numpy())
        assert found.auroc[concept] == pytest.approx(roc_auc_score(truth[:, concept], scores), abs=0.005)
    assert found.auroc[0] > 0.999
    assert abs(found.auroc[2] - 0.5) < 0.05


@pytest.mark.parametrize("seed", range(4))
def test_the_best_threshold_is_the_best_of_all(seed: int):
    generator = np.random.default_rng(seed)
    truth = generator.random(80) < 0.3
    scores = np.round(generator.normal(size=80) + truth, 1)
    best, threshold = probes.best_threshold(scores, truth)
    tried = {at: f1_score(truth, scores >= at) for at in scores}
    assert best == pytest.approx(max(tried.values()))
    assert f1_score(truth, scores >= threshold) == pytest.approx(best)


def test_auroc_counts_ties_half():
    generator = np.random.default_rng(0)
    truth = generator.random(200) < 0.4
    scores = np.round(generator.normal(size=200), 0)
    assert probes.auroc(scores, truth) == pytest.approx(roc_auc_score(truth, scores))
    assert probes.auroc(np.zeros(200), truth) == 0.5
    assert np.isnan(probes.auroc(scores, np.zeros(200, bool)))


def test_newton_finds_the_minimum():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 3, generator=generator).double()
    y = (x[:, 0] - 2 * x[:, 1] + torch.randn(300, generator=generator) > 0.5).double()
    weights = probes.newton(x, y).requires_grad_()
    inputs = torch.cat([x, torch.ones(300, 1)], 1)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(inputs @ weights, y)
    (loss + probes.DECAY / 2 * weights.square().sum()).backward()
    assert weights.grad is not None
    assert weights.grad.abs().max() < 1e-8


def test_few_units_say_as_much_as_they_hold():
    """A concept that is the difference of two units: one of them tells some of it, both tell all."""
    generator = np.random.default_rng(0)
    values = generator.random((4000, 12))
    truth = np.stack([values[:, 3] > 0.7, values[:, 5] - values[:, 6] > 0.3], 1)
    half = 2000
    found = probes.sparse_probes(
        activity_of(values[:half]), held_of(truth[:half]), activity_of(values[half:]), held_of(truth[half:]),
        np.arange(12), (1, 2, 5), seed=0,
    )  # fmt: skip
    assert found[1][0] == 1
    assert 0.7 < found[1][1] < 0.95
    assert found[2][1] > 0.99


def test_the_sign_of_a_coefficient_counts():
    generator = np.random.default_rng(0)
    values = generator.normal(size=(2000, 3))
    held = held_of(values[:, :1] < -1.0)
    found = probes.sparse_probes(activity_of(values), held, activity_of(values), held, np.arange(3), (1,), seed=0)
    assert found[1][0] == 1
