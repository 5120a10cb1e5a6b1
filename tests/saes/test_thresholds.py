import pytest
import torch

from saes import thresholds
from saes.dictionary import Weights
from saes.stored import load
from saes.thresholds import JumpReLU, one_threshold, threshold_per_latent


def case(n=30, d=8, tokens=400, seed=0):
    g = torch.Generator().manual_seed(seed)
    weights = Weights(
        torch.randn(d, n, generator=g), torch.randn(n, generator=g), torch.randn(n, d, generator=g), torch.zeros(d)
    )
    return weights, torch.randn(tokens, d, generator=g)


def pre(weights, x):
    return x @ weights.W_enc + weights.b_enc


@pytest.mark.parametrize("block", [2**25, 700, 1])
def test_one_threshold_lets_the_wanted_number_of_latents_fire_per_token(block, monkeypatch):
    monkeypatch.setattr(thresholds, "BLOCK_ELEMENTS", block)
    weights, x = case()
    threshold = one_threshold(weights, x, per_token=2.5)
    assert threshold.unique().numel() == 1
    assert int((pre(weights, x) > threshold).sum()) == 1000


def test_a_threshold_that_cannot_be_reached_is_zero():
    weights, x = case()
    assert one_threshold(weights, x, per_token=29.9).abs().max() == 0


@pytest.mark.parametrize("block", [2**25, 900])
def test_a_threshold_per_latent_lets_each_fire_on_its_share(block, monkeypatch):
    monkeypatch.setattr(thresholds, "BLOCK_ELEMENTS", block)
    weights, x = case()
    density = torch.linspace(0, 0.1, 30, dtype=torch.float64)
    density[-1] = 1.0
    threshold = threshold_per_latent(weights, x, density)
    fired = (pre(weights, x).relu() > threshold).sum(0)
    wanted = (density * 400).round().long().minimum((pre(weights, x) > 0).sum(0))
    assert torch.equal(fired, wanted)


def test_a_latent_fires_above_its_threshold_with_its_own_value(tmp_path):
    weights, x = case()
    threshold = torch.linspace(0, 3, 30)
    dictionary = JumpReLU(Weights(weights.W_enc, weights.b_enc, weights.W_dec, weights.b_dec, threshold=threshold))
    rows = torch.zeros(400, 2, dtype=torch.long)
    a = pre(weights, x)
    expected = torch.where((a > threshold) & (a > 0), a, torch.zeros(()))
    assert torch.equal(dictionary.read(x, rows).dense() > 0, expected > 0)
    assert torch.allclose(dictionary.read(x, rows).dense(), expected)
    dictionary.save(tmp_path)
    assert torch.equal(load(tmp_path).read(x, rows).values, dictionary.read(x, rows).values)


def test_a_token_alone_gets_the_codes_it_gets_in_a_batch():
    weights, x = case()
    dictionary = JumpReLU(Weights(weights.W_enc, weights.b_enc, weights.W_dec, weights.b_dec, threshold=torch.ones(30)))
    together = dictionary.read(x, torch.zeros(400, 2, dtype=torch.long))
    for i in range(0, 400, 40):
        alone = dictionary.read(x[i : i + 1], torch.zeros(1, 2, dtype=torch.long))
        span = slice(int(together.indptr[i]), int(together.indptr[i + 1]))
        assert torch.equal(alone.units, together.units[span])
