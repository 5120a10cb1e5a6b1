from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import pooled_experts as package
from kernels.pooled_experts import pooled_experts, prefers_dense, reference


def inputs(tokens, d, n_pools, experts, visits, k, seed=0):
    g = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)  # noqa: E731
    return {
        "x": draw(tokens, d), "u": draw(n_pools, experts, d), "v": draw(n_pools, experts, d),
        "pools": torch.randint(0, n_pools, (tokens, visits), generator=g),
        "indices": torch.randint(0, experts, (tokens, visits, k), generator=g), "gates": draw(tokens, visits, k),
    }  # fmt: skip


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    tokens=st.sampled_from([0, 1, 9]), n_pools=st.sampled_from([1, 4]), experts=st.sampled_from([1, 20]),
    visits=st.sampled_from([1, 3]), k=st.sampled_from([1, 4]), activation=st.sampled_from(["relu", "gelu"]),
    dense=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_both_ways_equal_the_float64_reference_in_every_gradient(
    outputs_and_gradients, assert_same, tokens, n_pools, experts, visits, k, activation, dense, seed
):
    given_ = inputs(tokens, 7, n_pools, experts, visits, k, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(package.DENSE_BELOW, "cpu", 1e9 if dense else 0.0)
        fast = outputs_and_gradients(lambda **g: pooled_experts(**g, activation=activation), given_, torch.float32)
    slow = outputs_and_gradients(
        lambda **g: reference.pooled_experts(**g, activation=activation), given_, torch.float64
    )
    assert_same(fast, slow)


def test_the_choice_follows_the_measured_table(monkeypatch):
    monkeypatch.setitem(package.DENSE_BELOW, "cpu", 10.0)
    assert prefers_dense(99, 10, "cpu")
    assert not prefers_dense(100, 10, "cpu")
    assert not prefers_dense(1, 1, "unknown device")


def test_repeats_to_the_bit(outputs_and_gradients):
    given_ = inputs(60, 8, 3, 300, 2, 4)
    run = lambda: outputs_and_gradients(lambda **g: pooled_experts(**g, activation="gelu"), given_, torch.float32)  # noqa: E731
    first, again = run(), run()
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_reference_passes_gradcheck():
    given_ = inputs(2, 3, 2, 3, 2, 2)
    leaves = [given_[name].requires_grad_() for name in ("x", "u", "v", "gates")]
    assert torch.autograd.gradcheck(
        lambda x, u, v, gates: reference.pooled_experts(x, u, v, given_["pools"], given_["indices"], gates, "silu"),
        leaves,
    )
