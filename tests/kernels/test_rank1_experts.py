from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from kernels import dispatch
from kernels.rank1_experts import ACTIVATIONS, coefficients, cpu, rank1_experts, reference
from kernels.segments import PIECE


def inputs(tokens=7, d=12, n_experts=30, slots=5, seed=0, indices=None):
    g = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)  # noqa: E731
    if indices is None:
        indices = torch.randint(0, n_experts, (tokens, slots), generator=g)
    return {
        "x": draw(tokens, d), "u": draw(n_experts, d), "v": draw(n_experts, d),
        "indices": indices, "gates": draw(tokens, slots),
    }  # fmt: skip


def experts(activation):
    return lambda **given_: rank1_experts(**given_, activation=activation)


def truth(activation):
    return lambda **given_: reference.rank1_experts(**given_, activation=activation)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    tokens=st.sampled_from([0, 1, 3, 17]), d=st.sampled_from([1, 7, 16, 33]), n_experts=st.sampled_from([1, 5, 40]),
    slots=st.sampled_from([1, 2, 4, 9]), activation=st.sampled_from(ACTIVATIONS), seed=st.integers(0, 99),
)  # fmt: skip
def test_equals_the_float64_reference_in_every_output_and_gradient(
    outputs_and_gradients, assert_same, tokens, d, n_experts, slots, activation, seed
):
    given_ = inputs(tokens, d, n_experts, slots, seed)
    fast = outputs_and_gradients(experts(activation), given_, torch.float32)
    assert_same(fast, outputs_and_gradients(truth(activation), given_, torch.float64))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_coefficients_equal_the_float64_reference(outputs_and_gradients, assert_same, activation):
    given_ = {name: value for name, value in inputs(13, 9).items() if name != "v"}
    fast = outputs_and_gradients(lambda **g: coefficients(**g, activation=activation), given_, torch.float32)
    slow = outputs_and_gradients(lambda **g: reference.coefficients(**g, activation=activation), given_, torch.float64)
    assert_same(fast, slow)


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_every_token_in_one_expert_is_split_and_still_right(outputs_and_gradients, assert_same, activation):
    tokens = 5 * PIECE + 3  # relu leaves about half: still several pieces
    given_ = inputs(tokens, 6, 4, 2, indices=torch.full((tokens, 2), 2))
    fast = outputs_and_gradients(experts(activation), given_, torch.float32)
    assert_same(fast, outputs_and_gradients(truth(activation), given_, torch.float64))
    assert fast["gradient of u"][[0, 1, 3]].eq(0).all(), "experts nobody uses"


def test_repeats_to_the_bit_whatever_the_number_of_threads(outputs_and_gradients):
    tokens = 3 * PIECE
    given_ = inputs(tokens, 16, 50, 8)
    given_["indices"][:, 0] = 7  # a hot one
    first = outputs_and_gradients(experts("gelu"), given_, torch.float32)
    threads = torch.get_num_threads()
    try:
        for n in (threads, 1, 3):
            torch.set_num_threads(n)
            again = outputs_and_gradients(experts("gelu"), given_, torch.float32)
            assert all(torch.equal(first[name], again[name]) for name in first)
    finally:
        torch.set_num_threads(threads)


def test_sparse_gradients_name_the_touched_rows_only():
    given_ = {k: v.float() if v.is_floating_point() else v for k, v in inputs(tokens=4, n_experts=1000).items()}
    u = given_["u"].requires_grad_()
    rank1_experts(**given_, activation="gelu", sparse_gradients=True).sum().backward()
    sparse = u.grad
    assert sparse is not None
    assert sparse.is_sparse
    assert torch.equal(sparse._indices()[0], given_["indices"].unique())
    u.grad = None
    rank1_experts(**given_, activation="gelu").sum().backward()
    assert torch.equal(sparse.to_dense(), u.grad)


def test_frozen_tables_get_no_gradient_and_the_others_stay():
    given_ = {k: v.float() if v.is_floating_point() else v for k, v in inputs().items()}
    free = {k: v.clone().requires_grad_() for k, v in given_.items() if v.is_floating_point()}
    rank1_experts(**{**given_, **free}, activation="silu").sum().backward()
    x = given_["x"].clone().requires_grad_()
    rank1_experts(**{**given_, "x": x}, activation="silu").sum().backward()
    assert torch.equal(x.grad, free["x"].grad)


def test_strided_inputs_are_read_right():
    given_ = {k: v.float() if v.is_floating_point() else v for k, v in inputs(d=8).items()}
    strided = {k: v.t().contiguous().t() for k, v in given_.items()}
    assert torch.equal(rank1_experts(**given_, activation="relu"), rank1_experts(**strided, activation="relu"))


def test_nan_in_the_input_reaches_the_output():
    given_ = {k: v.float() if v.is_floating_point() else v for k, v in inputs().items()}
    given_["x"][2, 3] = float("nan")
    y = rank1_experts(**given_, activation="relu")
    assert y[2].isnan().all()
    assert not y[[0, 1, 3, 4, 5, 6]].isnan().any()


@pytest.mark.parametrize("activation", ["gelu", "silu", "relu2"])
def test_reference_passes_gradcheck(activation):
    given_ = inputs(tokens=2, d=3, n_experts=4, slots=3)
    leaves = [given_[name].requires_grad_() for name in ("x", "u", "v", "gates")]
    assert torch.autograd.gradcheck(
        lambda x, u, v, gates: reference.rank1_experts(x, u, v, given_["indices"], gates, activation), leaves
    )


def test_flop_counter_sees_what_the_reference_costs(outputs_and_gradients, forced):
    counts = []
    for implementation in ("cpu", "reference"):
        forced(implementation)
        with FlopCounterMode(display=False) as counter:
            outputs_and_gradients(experts("relu"), inputs(), torch.float32)
        counts.append(counter.get_total_flops())
    assert counts == [12 * 7 * 5 * 12] * 2


def test_compiles_without_a_graph_break(outputs_and_gradients, assert_same):
    compiled = torch.compile(lambda **g: 2 * rank1_experts(**g, activation="silu"), fullgraph=True, backend="aot_eager")
    eager = lambda **g: 2 * rank1_experts(**g, activation="silu")  # noqa: E731
    assert_same(
        outputs_and_gradients(compiled, inputs(), torch.float32),
        outputs_and_gradients(eager, inputs(), torch.float32), 0,
    )  # fmt: skip


def test_custom_op_is_well_formed():
    given_ = {k: v.float().requires_grad_() if v.is_floating_point() else v for k, v in inputs().items()}
    found = torch.library.opcheck(torch.ops.harness.rank1_experts.default, (*given_.values(), "gelu", False, "cpu"))
    assert len(found) > 1
    assert set(found.values()) == {"SUCCESS"}


def test_float64_takes_the_reference():
    with dispatch.recording() as ran:
        rank1_experts(**inputs(), activation="relu")
    assert ran == {"rank1_experts": "reference"}


def test_unknown_activation_is_named_with_the_known():
    with pytest.raises(ValueError, match=r"tanh.*relu, gelu, silu, relu2"):
        rank1_experts(**inputs(), activation="tanh")


@pytest.mark.parametrize("bad", [-1, 30])
def test_index_outside_the_table_is_refused(bad):
    given_ = {k: v.float() if v.is_floating_point() else v for k, v in inputs().items()}
    given_["indices"][3, 1] = bad
    with pytest.raises(IndexError, match=f"{bad} is outside"):
        rank1_experts(**given_, activation="relu")


def test_tables_past_two_to_the_31_elements_are_addressed_right(tmp_path):
    d, n = 2048, 2**20 + 64  # 2.1e9 elements each, in a sparse file of which a few pages exist
    mapped = np.memmap(tmp_path / "table", np.float32, "w+", shape=(n, d))
    ids = torch.tensor([[n - 1, 3], [n - 2, n - 1]])
    rows = np.random.default_rng(0).normal(size=(3, d)).astype(np.float32)
    mapped[[n - 1, n - 2, 3]] = rows
    table = torch.from_numpy(mapped)
    assert table.numel() > 2**31
    x, gates = torch.randn(2, d) / d**0.5, torch.ones(2, 2)
    small = {"u": torch.from_numpy(rows), "v": torch.from_numpy(rows), "indices": torch.tensor([[0, 2], [1, 0]])}
    y, h = cpu.forward(x, table, table, ids, gates, "gelu")
    expected = reference.rank1_experts(x, **small, gates=gates, activation="gelu")
    assert torch.allclose(y, expected, rtol=1e-4, atol=1e-3)
    dx, _, touched, du, _ = cpu.backward(y, x, table, table, ids, gates, h, "gelu", True)
    assert touched.tolist() == [3, n - 2, n - 1]
    assert du.isfinite().all()
    assert dx.isfinite().all()
