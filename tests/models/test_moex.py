import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import models
from models.dense import DenseConfig, DenseForCausalLM
from models.moex import Moex, MoexConfig, upcycle

D, WIDTH, TOKENS = 12, 7, 9
ACTIVATE: Any = {"relu": F.relu, "gelu": F.gelu}
ROWS = torch.zeros(TOKENS, 2, dtype=torch.long)


def moex(**settings) -> Any:
    config = MoexConfig(**{"d_model": D, "n_heads": 2, "n_experts": 5, "k": 2, "d_expert": WIDTH, **settings})
    torch.manual_seed(0)
    layer = Moex(config, 0, None).double().eval()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()
    return layer


def x_of() -> torch.Tensor:
    return torch.randn(TOKENS, D, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def score(layer: Any, x: torch.Tensor, expert: int) -> float:
    if layer.router is not None:
        return float(layer.router.weight[expert] @ x)
    rows = layer.experts[expert].w_in.weight
    mean, variance = rows.mean(0), ((rows - rows.mean(0)) ** 2).mean(0)
    return -math.erf(float(mean @ x) / math.sqrt(2 * float(variance @ x**2)))


def naive(layer: Any, x: torch.Tensor, without: int | None = None) -> torch.Tensor:
    out = torch.zeros_like(x)
    for token in range(len(x)):
        scores = [score(layer, x[token], expert) for expert in range(layer.n_experts)]
        best = sorted(range(layer.n_experts), key=lambda e: -scores[e])[: layer.k]
        gates = torch.tensor([scores[e] for e in best], dtype=x.dtype).softmax(0)
        for gate, e in zip(gates, best, strict=True):
            for neuron in range(WIDTH):
                if e * WIDTH + neuron != without:
                    h = ACTIVATE[layer.activation](layer.experts[e].w_in.weight[neuron] @ x[token])
                    out[token] += gate * h * layer.experts[e].w_out.weight[:, neuron]
    return out


@pytest.mark.parametrize("router", ["sparsity", "linear"])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
@torch.no_grad()
def test_each_of_the_four_layers_equals_a_loop_over_experts_and_neurons(router, activation):
    layer = moex(router=router, activation=activation)
    x = x_of()
    torch.testing.assert_close(layer.fused(x), naive(layer, x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("router", ["sparsity", "linear"])
@torch.no_grad()
def test_ablating_a_neuron_equals_the_sum_without_it(router):
    layer = moex(router=router)
    x = x_of()
    codes = layer.read(x, ROWS)
    unit = int(codes.units[4])
    torch.testing.assert_close(layer.write(codes.keep(codes.units != unit), x), naive(layer, x, without=unit))


@torch.no_grad()
def test_the_sparsity_router_prefers_the_expert_that_fires_least():
    layer = moex(n_experts=4, d_expert=2000)
    for e, shift in enumerate((0.3, -0.3, 0.0, 0.1)):
        layer.experts[e].w_in.weight.add_(shift)
    x = x_of().abs()
    fires = torch.stack([(expert.w_in(x) > 0).double().mean(1) for expert in layer.experts], dim=1)
    predicted = (1 - layer.scores(x)) / 2
    torch.testing.assert_close(predicted, fires, rtol=0, atol=0.05)
    assert bool((layer.route(x)[0][:, 0] == 1).all())


def test_the_sparsity_router_has_no_parameters_and_moves_the_experts_rows():
    layer = moex()
    assert layer.roles == {}
    layer.route(x_of())[1][:, 0].sum().backward()
    assert any(expert.w_in.weight.grad.abs().sum() > 0 for expert in layer.experts)


def test_losses_by_hand():
    layer = moex(router="linear").train()
    x = x_of()
    experts, _ = layer.route(x)
    scores = x @ layer.router.weight.T
    share = torch.tensor([float((experts == e).sum()) / experts.numel() for e in range(5)], dtype=x.dtype)
    torch.testing.assert_close(layer.auxiliary["balance"], 5 * (share * scores.softmax(1).mean(0)).sum())
    torch.testing.assert_close(layer.auxiliary["z"], scores.exp().sum(1).log().square().mean())
    sparse = moex().train()
    sparse.route(x)
    assert set(sparse.auxiliary) == {"balance"}


def dense(activation: Any) -> DenseForCausalLM:
    torch.manual_seed(0)
    return DenseForCausalLM(
        DenseConfig(d_model=16, n_heads=2, n_layers=2, vocab_size=20, d_ff=24, activation=activation)
    ).eval()


@torch.no_grad()
def test_an_upcycled_model_without_noise_computes_what_the_dense_one_does():
    source = dense("relu")
    model = upcycle(source, n_experts=4, noise=0.0, generator=torch.Generator().manual_seed(0)).eval()
    ids = torch.arange(12).view(2, 6)
    torch.testing.assert_close(model(ids).logits, source(ids).logits)
    noisy: Any = upcycle(source, n_experts=4, generator=torch.Generator().manual_seed(0))
    weights = [expert.w_in.weight for expert in noisy.feed_forwards()[0].experts]
    assert not torch.equal(weights[0], weights[1])


def test_a_swiglu_model_cannot_be_upcycled():
    with pytest.raises(ValueError, match="activation='swiglu' cannot be upcycled: use one of gelu, relu"):
        upcycle(dense("swiglu"), generator=torch.Generator())


def test_the_switch_is_the_plain_layer_of_the_same_code():
    config: Any = models.ARCHITECTURES["switch"].config()
    assert (config.router, config.activation, config.d_expert) == ("linear", "gelu", 256)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 9}, "k=9 exceeds n_experts=8; nearest: 8"),
        ({"k": 1}, "k=1 gates by 1 always, so the router cannot learn; nearest: k=2"),
        ({"balance_coefficient": -1.0}, "balance_coefficient=-1.0 must be a number of at least 0"),
        ({"router": "sparse"}, "router='sparse' is not known: did you mean sparsity"),
    ],
)
def test_impossible_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        models.build("moex", **settings)
