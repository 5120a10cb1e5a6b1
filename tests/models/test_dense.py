from typing import Any

import pytest
import torch
import torch.nn.functional as F

from kernels.codes import Codes
from models.dense import Dense, DenseConfig

D, WIDTH, TOKENS = 16, 24, 5


def dense(activation: Any) -> Dense:
    torch.manual_seed(0)
    return Dense(DenseConfig(d_model=D, n_heads=2, d_ff=WIDTH, activation=activation), 0, None).double()


def expected_coefficient(layer: Any, x: torch.Tensor, neuron: int) -> torch.Tensor:
    """One neuron of one token, written out."""
    h = layer.w_in.weight @ x
    if layer.activation == "gelu":
        return h[neuron] * 0.5 * (1 + torch.erf(h[neuron] / 2**0.5))
    if layer.activation == "relu":
        return h[neuron].clamp(min=0)
    if layer.activation == "swiglu":
        g = layer.w_gate.weight[neuron] @ x
        return g / (1 + torch.exp(-g)) * h[neuron]
    s = h * torch.exp(h) / torch.exp(h).sum()
    normal = (s - s.mean()) / (s.var(correction=0) + layer.norm.eps).sqrt()
    return (normal * layer.norm.weight + layer.norm.bias)[neuron]


@pytest.mark.parametrize("activation", ["gelu", "relu", "swiglu", "solu"])
@torch.no_grad()
def test_layer_is_the_sum_over_neurons_of_coefficient_times_output_row(activation):
    layer = dense(activation)
    if layer.norm is not None:
        layer.norm.weight.normal_()
        layer.norm.bias.normal_()
    x = torch.randn(TOKENS, D, dtype=torch.float64)
    out = torch.zeros(TOKENS, D, dtype=torch.float64)
    for token in range(TOKENS):
        for neuron in range(WIDTH):
            out[token] += expected_coefficient(layer, x[token], neuron) * layer.w_out.weight[:, neuron]
    torch.testing.assert_close(layer.fused(x), out, rtol=1e-10, atol=1e-12)


@torch.no_grad()
def test_relu_codes_hold_the_neurons_that_fire_and_only_those():
    layer = dense("relu")
    x = torch.randn(TOKENS, D, dtype=torch.float64)
    codes: Codes = layer.read(x, torch.zeros(TOKENS, 2, dtype=torch.long))
    torch.testing.assert_close(codes.dense(), F.relu(x @ layer.w_in.weight.T))
    assert 0 < codes.nnz < TOKENS * WIDTH


def test_variants_have_equally_many_parameters_by_default():
    def count(activation: Any) -> int:
        return sum(p.numel() for p in Dense(DenseConfig(activation=activation), 0, None).parameters())

    assert DenseConfig().d_ff == 512
    assert count("relu") == count("gelu")
    assert count("swiglu") == pytest.approx(count("gelu"), rel=0.01)
