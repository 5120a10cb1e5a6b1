from typing import Any

import pytest
import torch
import torch.nn.functional as F

from models.dense import DenseConfig, DenseForCausalLM
from models.peer import Peer, PeerConfig, PeerForCausalLM, typical_scores
from models.trunk import dense_output_std

D, TOKENS = 16, 7
ACTIVATE = {"gelu": F.gelu, "relu": F.relu, "silu": F.silu, "relu2": lambda h: F.relu(h) ** 2}


def peer(**settings) -> Peer:
    config = PeerConfig(**{"d_model": D, "n_heads": 2, "n_experts": 36, "heads": 3, "k": 4, "d_key": 5, **settings})
    torch.manual_seed(0)
    layer = Peer(config, 0, None).double().eval()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()
    return layer


def queries(layer: Any, x: torch.Tensor) -> torch.Tensor:
    """x `[d]` -> `[heads, 2 · d_key]` of one token, normalised."""
    q = (layer.query.weight @ x).view(layer.heads, -1)
    norm: Any = layer.query_norm
    kind = type(norm)
    if kind is torch.nn.RMSNorm:
        return torch.stack([h / (h.square().mean() + norm.eps).sqrt() * norm.weight for h in q])
    if kind is torch.nn.BatchNorm1d:
        flat = (q.flatten() - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
        return flat.view_as(q)
    return q


def naive(layer: Any, x: torch.Tensor) -> torch.Tensor:
    """The definition, expert by expert: score all, keep the k best of each head."""
    n = layer.keys1.shape[1]
    out = torch.zeros_like(x)
    for token in range(x.shape[0]):
        for head, q in enumerate(queries(layer, x[token])):
            keys1, keys2 = (keys[head % keys.shape[0]] for keys in (layer.keys1, layer.keys2))
            scores = [float(q @ torch.cat([keys1[i // n], keys2[i % n]])) for i in range(layer.n_units)]
            best = sorted(range(layer.n_units), key=lambda i: -scores[i])[: layer.k]
            kept = torch.tensor([scores[i] for i in best], dtype=x.dtype)
            gates = {"softmax": torch.softmax(kept, 0), "sigmoid": torch.sigmoid(kept), "relu": kept.clamp(min=0)}
            for i, gate in zip(best, gates[layer.gate], strict=True):
                out[token] += gate * ACTIVATE[layer.activation](layer.u[i] @ x[token]) * layer.v[i]
    return out


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"shared_keys": True},
        {"query_norm": "batch"},
        {"query_norm": "none"},
        {"gate": "sigmoid", "activation": "relu"},
        {"gate": "relu", "activation": "relu2"},
        {"activation": "silu"},
        {"k": 6},
        {"k": 1, "gate": "sigmoid"},
    ],
    ids=str,
)
@torch.no_grad()
def test_layer_equals_a_loop_over_experts(settings):
    layer = peer(**settings)
    x = torch.randn(TOKENS, D, dtype=torch.float64)
    torch.testing.assert_close(layer.fused(x), naive(layer, x), rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_an_expert_that_several_heads_retrieve_is_one_unit_with_their_gates_summed():
    layer = peer(shared_keys=True, activation="relu", gate="sigmoid")
    half = layer.query.weight.view(layer.heads, 2 * layer.d_key, D)
    half[1:] = half[:1]  # every head asks the same question
    x = torch.randn(TOKENS, D, dtype=torch.float64)
    codes = layer.read(x, torch.zeros(TOKENS, 2, dtype=torch.long))
    assert int(codes.row_lengths().max()) <= layer.k
    indices, gates = layer.route(x)
    token = codes.token_of_entry()
    for entry in range(codes.nnz):
        t, unit = token[entry], codes.units[entry]
        expected = gates[t][indices[t] == unit].sum() * F.relu(layer.u[unit] @ x[t])
        torch.testing.assert_close(codes.values[entry], expected)


@pytest.mark.parametrize("gate", ["softmax", "sigmoid", "relu"])
@pytest.mark.parametrize("query_norm", ["rms", "batch", "none"])
@pytest.mark.parametrize("activation", ["gelu", "relu2"])
@torch.no_grad()
def test_output_starts_as_large_as_a_dense_layers(gate, query_norm, activation):
    config = PeerConfig(gate=gate, query_norm=query_norm, activation=activation, n_experts=1024)
    torch.manual_seed(0)
    layer = PeerForCausalLM(config).feed_forwards()[0].train()
    std = float(layer.fused(torch.randn(256, config.d_model)).std())
    assert std == pytest.approx(dense_output_std(config), rel=0.25)


@torch.no_grad()
def test_the_size_aimed_at_is_what_a_dense_layer_has():
    torch.manual_seed(0)
    config = DenseConfig()
    layer = DenseForCausalLM(config).feed_forwards()[0]
    assert float(layer.fused(torch.randn(2000, 128)).std()) == pytest.approx(dense_output_std(config), rel=0.05)


def test_typical_scores_are_close_to_drawn_ones():
    n, k = 64, 8
    halves = torch.randn(400, 2, n, generator=torch.Generator().manual_seed(0)) / 2**0.5
    drawn = (halves[:, 0, :, None] + halves[:, 1, None, :]).flatten(1).topk(k).values.mean(0)
    torch.testing.assert_close(typical_scores(n, k).float(), drawn, rtol=0.05, atol=0.0)


def test_only_retrieved_experts_get_gradient():
    layer: Any = peer()
    x = torch.randn(TOKENS, D, dtype=torch.float64)
    layer.fused(x).square().sum().backward()
    retrieved = torch.zeros(layer.n_units, dtype=torch.bool)
    retrieved[layer.route(x)[0].flatten()] = True
    assert not retrieved.all()
    assert torch.equal(layer.u.grad.abs().sum(1) > 0, retrieved)
    assert torch.equal(layer.v.grad.abs().sum(1) > 0, retrieved)


def test_active_parameters_and_flops_by_hand():
    layer = Peer(PeerConfig(), 0, None)
    query, norm, keys, experts = 128 * 4 * 64, 64, 2 * 4 * 64 * 32, 2 * 32 * 128
    assert layer.active_parameters() == query + norm + keys + experts
    assert layer.flops_per_token() == 2 * (query + keys + experts)


def test_heads_that_ask_for_more_experts_than_there_are_touch_each_once():
    layer = Peer(PeerConfig(n_experts=16, heads=8, k=4), 0, None)
    assert layer.active_parameters() == sum(p.numel() for p in layer.parameters())
