import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import models
from kernels.codes import Codes
from models import Tap
from models.monet import Monet, MonetConfig, MonetForCausalLM, Routing
from models.trunk import dense_output_std

D, N, TOKENS = 12, 5, 6
ROWS = torch.zeros(TOKENS, 2, dtype=torch.long)


def monet(**settings) -> Any:
    config = MonetConfig(
        **{"d_model": D, "n_heads": 2, "n_experts": N * N, "heads": 3, "k": 2, "d_expert": 4, **settings}
    )
    torch.manual_seed(0)
    layer = Monet(config, 0, Routing()).double().eval()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()
    return layer


def x_of(tokens: int = TOKENS) -> torch.Tensor:
    return torch.randn(tokens, D, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def gates(layer: Any, x: torch.Tensor, half: int) -> torch.Tensor:
    """`[heads, n]` of one token, written out, in evaluation."""
    linear, norm = getattr(layer.router, f"w{half}"), getattr(layer.router, f"norm{half}")
    rows = []
    for head, z in enumerate((linear.weight @ x).view(layer.heads, N)):
        if norm is None:
            normed = z / (z.square().mean() + layer.router.eps).sqrt()
        else:
            normed = (z - norm.running_mean[head]) / (norm.running_var[head] + norm.eps).sqrt()
        threshold = min(float(normed.max()), float(torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(1 - 2 / N))))
        kept = normed >= threshold - 1e-6
        weights = torch.where(kept, z.exp(), torch.zeros_like(z))
        rows.append(weights / weights.sum())
    return torch.stack(rows)


def expert(layer: Any, x: torch.Tensor, i: int, j: int) -> torch.Tensor:
    """E_ij(x) as the paper defines it."""
    m, d = layer.m, D
    if not layer.vertical:
        u, b = layer.u.view(N, m, d)[i], layer.b.view(N, m)[i]
        return layer.v1.view(d, N, m)[:, j] @ F.relu(u @ x + b).square() + layer.c1[j]
    u, b = layer.u.view(2, N, m // 2, d), layer.b.view(2, N, m // 2)
    h = torch.cat([F.relu(u[0, i] @ x + b[0, i]).square(), F.relu(u[1, j] @ x + b[1, j]).square()])
    left = layer.v1.view(d // 2, N, m)[:, i] @ h + layer.c1[i]
    return torch.cat([left, layer.v2.view(d // 2, N, m)[:, j] @ h + layer.c2[j]])


def naive(layer: Any, x: torch.Tensor, without: tuple[int, int] | None = None) -> torch.Tensor:
    out = torch.zeros_like(x)
    for token in range(len(x)):
        g1, g2 = gates(layer, x[token], 1), gates(layer, x[token], 2)
        for i in range(N):
            for j in range(N):
                if (i, j) != without:
                    out[token] += (g1[:, i] * g2[:, j]).sum() * expert(layer, x[token], i, j)
    return out


both = pytest.mark.parametrize("decomposition", ["horizontal", "vertical"])
norms = pytest.mark.parametrize("norm", ["batch", "rms"])


@both
@norms
@torch.no_grad()
def test_layer_equals_a_loop_over_all_pairs(decomposition, norm):
    layer = monet(decomposition=decomposition, router_norm=norm)
    if norm == "batch":
        layer.train()
        layer.fused(x_of(50))  # moves the running statistics away from 0 and 1
        layer.eval()
    x = x_of()
    torch.testing.assert_close(layer.fused(x), naive(layer, x), rtol=1e-9, atol=1e-9)


@both
@torch.no_grad()
def test_masking_a_pair_equals_the_sum_without_it(decomposition):
    layer = monet(decomposition=decomposition)
    x = x_of()
    codes = layer.read(x, ROWS)
    i, j = divmod(int(codes.units[3]), N)
    rest = layer.write(codes.keep(codes.units != i * N + j), x)
    torch.testing.assert_close(rest, naive(layer, x, without=(i, j)), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(layer.write(codes, x), naive(layer, x), rtol=1e-10, atol=1e-10)
    assert not torch.allclose(rest, layer.fused(x))


@both
@torch.no_grad()
def test_what_a_pair_writes_is_its_expert(decomposition):
    layer = monet(decomposition=decomposition)
    x = x_of()
    codes = layer.read(x, ROWS)
    written = layer.writes(codes, x, torch.arange(codes.nnz))
    for entry, (token, unit) in enumerate(zip(codes.token_of_entry(), codes.units, strict=True)):
        torch.testing.assert_close(written[entry], expert(layer, x[token], *divmod(int(unit), N)))


@torch.no_grad()
def test_pieces_of_reading_are_one_whole(monkeypatch):
    layer = monet()
    x = x_of()
    whole = layer.read(x, ROWS).dense()
    monkeypatch.setattr("models.monet._PAIRS_AT_ONCE", 2 * N * N)
    torch.testing.assert_close(layer.read(x, ROWS).dense(), whole)


@torch.no_grad()
def test_a_half_keeps_about_k_and_at_least_one():
    layer = monet(n_experts=64 * 64, k=4, d_expert=2)
    layer.train()
    g1, _ = layer.route(x_of(500))
    kept = (g1 > 0).sum(-1)
    assert int(kept.min()) >= 1
    assert float(kept.double().mean()) == pytest.approx(4, rel=0.15)
    torch.testing.assert_close(g1.sum(-1), torch.ones_like(g1.sum(-1)))


def test_losses_by_hand():
    layer = monet(heads=1).train()
    g1, g2 = layer.route(x_of(3))
    expected = -0.5 * (g1.mean(0).clamp_min(1e-9).log().sum() + g2.mean(0).clamp_min(1e-9).log().sum()) / N
    torch.testing.assert_close(layer.auxiliary["uniformity"], expected)
    expected = 0.5 * ((1 - g1.amax(-1)).mean() + (1 - g2.amax(-1)).mean())
    torch.testing.assert_close(layer.auxiliary["ambiguity"], expected)


GROUPED: dict[str, Any] = {
    "d_model": 16, "n_layers": 4, "n_heads": 2, "vocab_size": 20, "n_experts": 25, "k": 2, "d_expert": 4,
}  # fmt: skip


@both
def test_layers_of_a_group_share_one_routing_exactly(decomposition):
    torch.manual_seed(0)
    model: Any = MonetForCausalLM(MonetConfig(**GROUPED, decomposition=decomposition, routing_group=2)).train()
    seen: list[Codes] = []
    for layer in model.feed_forwards():
        layer.tap = Tap(lambda codes, x: (seen.append(codes), codes)[1])
    ids = torch.arange(10)[None]
    model(ids, labels=ids).loss.backward()
    for first, second in ((0, 1), (2, 3)):
        assert torch.equal(seen[first].units, seen[second].units)
        assert torch.equal(seen[first].values, seen[second].values)
    assert not torch.equal(seen[1].dense(), seen[2].dense())
    names = [name for name, _ in model.named_parameters() if "router" in name]
    assert [name.split(".")[2] for name in names] == ["0", "0", "2", "2"]
    assert set(model.auxiliary_losses()) == {"uniformity", "ambiguity"}
    assert [bool(layer.auxiliary) for layer in model.feed_forwards()] == [True, False, True, False]
    copy.deepcopy(model)  # with the graph of the last forward still there


def test_a_layer_without_the_routing_of_its_group_says_so():
    model = MonetForCausalLM(MonetConfig(**GROUPED, routing_group=4))
    with pytest.raises(RuntimeError, match="first layer of this routing group"):
        model.feed_forwards()[1](torch.zeros(1, 3, 16), torch.arange(3)[None])


@torch.no_grad()
@pytest.mark.parametrize(("norm", "leaks"), [("batch", True), ("rms", False)])
def test_in_training_batch_norm_leaks_from_later_positions_and_rms_does_not(norm, leaks):
    layer = monet(router_norm=norm).train()
    x = x_of(40)
    changed = x.clone()
    changed[20:] = 3 * x[20:].flip(0)
    before, after = layer.fused(x)[:20], layer.fused(changed)[:20]
    share = float((before != after).any(1).double().mean())
    assert (share > 0.1) is leaks, f"{share:.0%} of the earlier tokens change"


@both
@pytest.mark.parametrize("activation", ["relu2", "gelu"])
@torch.no_grad()
def test_output_starts_as_large_as_a_dense_layers(decomposition, activation):
    config = MonetConfig(decomposition=decomposition, activation=activation)
    torch.manual_seed(0)
    layer = MonetForCausalLM(config).feed_forwards()[0].train()
    std = float(layer.fused(torch.randn(256, config.d_model)).std())
    assert std == pytest.approx(dense_output_std(config), rel=0.3)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("monet-hd", {"n_experts": 1000}, "n_experts=1000 is not a square; nearest: 961 or 1024"),
        ("monet-hd", {"n_experts": 16, "k": 4}, "k=4 keeps all of the n=4 parts .*; nearest: 3$"),
        ("monet-vd", {"d_expert": 5}, "d_expert=5 has no halves .*; nearest: 4 or 6$"),
        ("monet-vd", {"routing_group": 3}, "routing_group=3 does not divide n_layers=4; nearest: 2 or 4$"),
        ("monet-hd", {"decomposition": "vertical"}, "decomposition='vertical' contradicts 'monet-hd'"),
    ],
)
def test_impossible_settings(name, settings, message):
    with pytest.raises(ValueError, match=message):
        models.build(name, **settings)
