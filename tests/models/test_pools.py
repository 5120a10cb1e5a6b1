from typing import Any

import pytest
import torch
import torch.nn.functional as F

import models
from models.pools import BANDWIDTH, JumpGate, Pools, PoolsConfig, PoolsForCausalLM
from models.trunk import dense_output_std

D, TOKENS = 16, 40
ROWS = torch.zeros(TOKENS, 2, dtype=torch.long)
TINY: dict[str, Any] = {
    "d_model": D, "n_heads": 2, "pools": 6, "experts_per_pool": 16, "max_experts": 5, "d_key": 4, "side_width": 8,
}  # fmt: skip


def pools(**settings) -> Any:
    config = PoolsConfig(**{**TINY, **settings})
    torch.manual_seed(0)
    layer = Pools(config, 0, Pools.build_shared(config)).double().eval()
    if layer.shared is not None:
        layer.shared.double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()
        layer.query.weight.mul_(0.5)
        layer.keys1.mul_(0.4)
        layer.keys2.mul_(0.4)
    return layer


def x_of() -> torch.Tensor:
    return torch.randn(TOKENS, D, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def naive(layer: Any, x: torch.Tensor, without: int | None = None) -> torch.Tensor:
    """Every expert of every visited pool scored, token by token."""
    out = torch.zeros_like(x)
    n = layer.keys1.shape[2]
    for t, token in enumerate(x):
        gate_of = {0: 1.0}
        visited = [0]
        if layer.pool_router is not None:
            logits = layer.pool_router.weight @ token
            visited = list(range(layer.n_pools))
            gate_of = {p: 2 * float(torch.sigmoid(logits[p])) for p in visited}
            if layer.super_router is not None:
                group_logits = layer.super_router.weight @ token
                size = layer.n_pools // layer.n_super
                groups = sorted(range(layer.n_super), key=lambda g: -float(group_logits[g]))[: layer.open_super]
                visited = [p for p in visited if p // size in groups]
                gate_of = {p: gate_of[p] * 2 * float(torch.sigmoid(group_logits[p // size])) for p in visited}
            visited = sorted(visited, key=lambda p: -float(logits[p]))[: layer.visits]
        q = (layer.query.weight @ token).view(layer.heads, -1)
        q = q / (q.square().mean(1, keepdim=True) + layer.query_norm.eps).sqrt() * layer.query_norm.weight
        slots = []
        for pool in visited:
            for head in range(layer.heads):
                for e in range(layer.per_pool):
                    key = torch.cat([layer.keys1[pool, head, e // n], layer.keys2[pool, head, e % n]])
                    slots.append((float(q[head] @ key), pool, pool * layer.per_pool + e))
        logs = {pool: float(torch.tensor(gate_of[pool]).double().log()) for pool in visited}
        best = sorted(slots, key=lambda s: -(s[0] + logs[s[1]]))[: layer.max_experts]
        shares = layer.max_experts * torch.tensor([s for s, _, _ in best], dtype=x.dtype).softmax(0)
        for share, (_, pool, unit) in zip(shares, best, strict=True):
            if share > layer.log_threshold[pool].exp() and unit != without:
                out[t] += share * gate_of[pool] * F.gelu(layer.u[unit] @ token) * layer.v[unit]
    return out


CASES = [
    {},
    {"heads": 1, "pools_per_token": 1},
    {"pools": 1, "pools_per_token": 1},
    {"super_pools": 3, "super_pools_per_token": 2, "pools_per_token": 3},
    {"max_experts": 20, "pools_per_token": 2},
]


@pytest.mark.parametrize("settings", CASES, ids=str)
@torch.no_grad()
def test_layer_equals_a_loop_over_every_expert_of_the_visited_pools(settings):
    layer = pools(**settings)
    x = x_of()
    torch.testing.assert_close(layer.fused(x) - layer.rest(x), naive(layer, x), rtol=1e-8, atol=1e-8)


@torch.no_grad()
def test_ablating_an_expert_equals_the_sum_without_it():
    layer = pools()
    x = x_of()
    codes = layer.read(x, ROWS)
    unit = int(codes.units[7])
    torch.testing.assert_close(layer.write(codes.keep(codes.units != unit), x), naive(layer, x, without=unit))


@pytest.mark.parametrize("settings", CASES, ids=str)
@torch.no_grad()
def test_no_token_uses_more_than_max_experts_and_some_use_fewer(settings):
    layer = pools(**settings)
    lengths = layer.read(x_of(), ROWS).row_lengths()
    assert int(lengths.max()) <= layer.max_experts
    assert int(lengths.min()) < layer.max_experts


@torch.no_grad()
def test_a_token_stays_in_the_pools_it_visits_and_units_know_their_pool():
    layer = pools(super_pools=3, super_pools_per_token=1)
    codes = layer.read(x_of(), ROWS)
    pool = layer.pool_of_unit()
    assert pool.tolist() == [unit // 16 for unit in range(6 * 16)]
    for token in range(TOKENS):
        visited = pool[codes.units[codes.token_of_entry() == token]].unique()
        assert len(visited) <= 2
        assert len((visited // 2).unique()) <= 1  # of one super-pool


@torch.no_grad()
def test_a_higher_threshold_closes_slots():
    layer = pools()
    before = layer.read(x_of(), ROWS).nnz
    layer.log_threshold.fill_(0.0)
    some = layer.read(x_of(), ROWS).nnz
    layer.log_threshold.fill_(2.0)
    assert before != some
    assert layer.read(x_of(), ROWS).nnz == 0


def test_the_threshold_learns_through_the_rectangle_only():
    threshold = torch.full((4,), 1.0, dtype=torch.float64, requires_grad=True)
    w = torch.tensor([0.5, 1 - BANDWIDTH / 4, 1 + BANDWIDTH / 4, 2.0], dtype=torch.float64, requires_grad=True)
    out: Any = JumpGate.apply(w, threshold)
    assert out.tolist() == [0.0, 0.0, 1 + BANDWIDTH / 4, 2.0]
    out.backward(torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64))
    assert w.grad is not None
    assert threshold.grad is not None
    assert w.grad.tolist() == [0.0, 0.0, 3.0, 4.0]
    torch.testing.assert_close(threshold.grad, torch.tensor([0, -2, -3, 0], dtype=torch.float64) / BANDWIDTH)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_closed_slot_still_tells_its_gate_what_it_would_bring(dtype):
    # The fast kernel must not skip slots of gate 0 when it computes the gradient of gates: thresholds live on it.
    from kernels.rank1_experts import rank1_experts

    torch.manual_seed(0)
    x, u, v = torch.randn(3, D).to(dtype), torch.randn(9, D).to(dtype), torch.randn(9, D).to(dtype)
    gates = torch.tensor([[0.0, 1.0]] * 3).to(dtype).requires_grad_()
    indices = torch.tensor([[0, 1], [2, 3], [4, 5]])
    rank1_experts(x, u, v, indices, gates, "gelu").sum().backward()
    expected = F.gelu(torch.einsum("td,tsd->ts", x, u[indices])) * v[indices].sum(-1)
    torch.testing.assert_close(gates.grad, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_side_mlp_is_tied_across_layers_and_is_the_rest():
    torch.manual_seed(0)
    model: Any = PoolsForCausalLM(PoolsConfig(**TINY, n_layers=3, vocab_size=20))
    assert len([name for name, _ in model.named_parameters() if "w_in" in name]) == 1
    layer = model.feed_forwards()[2]
    x = torch.randn(4, D)
    torch.testing.assert_close(
        layer.rest(x), F.gelu(x @ model.model.shared.w_in.weight.T) @ model.model.shared.w_out.weight.T
    )
    without = PoolsForCausalLM(PoolsConfig(**{**TINY, "side_width": 0}, n_layers=3, vocab_size=20))
    assert without.model.shared is None
    assert torch.equal(without.feed_forwards()[0].rest(x), torch.zeros_like(x))


def test_losses_are_one_where_use_is_even_and_reach_the_routers():
    from models.pools import _balance

    even = torch.arange(12).view(3, 4)
    assert float(_balance(even, torch.full((12,), 1 / 12))) == pytest.approx(1)
    assert float(_balance(torch.zeros(3, 4, dtype=torch.long), F.one_hot(torch.tensor(0), 12).float())) == 12
    layer = pools(super_pools=3).train()
    layer.route(x_of())
    assert set(layer.auxiliary) == {"pool_balance", "pool_z", "expert_balance", "expert_z"}
    torch.stack(list(layer.auxiliary.values())).sum().backward()
    for parameter in (layer.pool_router.weight, layer.super_router.weight, layer.query.weight, layer.keys1):
        assert float(parameter.grad.abs().sum()) > 0


@pytest.mark.parametrize("name", ["pools", "peer"])
def test_sparse_gradients_are_the_rows_touched_and_equal_the_dense_ones(name):
    small = TINY if name == "pools" else {"d_model": D, "n_heads": 2, "n_experts": 64, "k": 4, "d_key": 4}
    ids = torch.arange(10)[None]
    gradients = []
    for sparse in (False, True):
        torch.manual_seed(0)
        model: Any = models.build(name, **small, n_layers=1, vocab_size=20, sparse_gradients=sparse).train()
        model(ids, labels=ids).loss.backward()
        gradients.append(model.feed_forwards()[0].u.grad)
    dense, rows = gradients
    assert rows.is_sparse
    assert rows.coalesce().indices().shape[1] < len(dense)
    torch.testing.assert_close(rows.to_dense(), dense)


@pytest.mark.parametrize("activation", ["gelu", "relu"])
@pytest.mark.parametrize("settings", [{}, {"max_experts": 24}, {"pools": 1, "pools_per_token": 1}], ids=str)
@torch.no_grad()
def test_the_experts_output_starts_as_large_as_a_dense_layers(activation, settings):
    config = PoolsConfig(activation=activation, side_width=0, **settings)
    torch.manual_seed(0)
    layer = PoolsForCausalLM(config).feed_forwards()[0]
    std = float(layer.fused(torch.randn(256, config.d_model)).std())
    assert std == pytest.approx(dense_output_std(config), rel=0.3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"experts_per_pool": 200}, "experts_per_pool=200 is not a square; nearest: 196 or 225"),
        ({"pools_per_token": 17}, "pools_per_token=17 exceeds the 16 pools that a token can reach; nearest: 16"),
        ({"super_pools": 5}, "super_pools=5 does not divide pools=16; nearest: 4 or 8"),
        ({"super_pools": 8, "pools_per_token": 3}, "pools_per_token=3 exceeds the 2 pools .*; nearest: 2"),
        (
            {"super_pools": 4, "super_pools_per_token": 5},
            "super_pools_per_token=5 exceeds the 4 super_pools; nearest: 4",
        ),
        ({"experts_per_pool": 4, "max_experts": 12}, "max_experts=12 exceeds the 8 experts .*; nearest: 8"),
        ({"max_experts": 1}, "max_experts=1 gates by the pool alone, so queries cannot learn; nearest: max_experts=2"),
        ({"side_width": -1}, "side_width=-1 is too small; nearest: 0"),
    ],
)
def test_impossible_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        models.build("pools", **settings)


@torch.no_grad()
def test_active_parameters_by_hand():
    layer = Pools(PoolsConfig(), 0, None)
    d, keys = 128, 2 * 2 * 16 * 32
    router, query, norm, visited = 16 * d, 2 * 64 * d, 64, 2 * (keys + 1)
    assert layer.active_parameters() == router + query + norm + visited + 2 * 12 * d
    assert layer.flops_per_token() == 2 * (router + query + 2 * keys + 2 * 12 * d)
