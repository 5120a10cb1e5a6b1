from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.selection import batch_topk, column_topk, positive, reference, topk


def matrix(rows, columns, kind, seed):
    g = torch.Generator().manual_seed(seed)
    if kind == "ties":
        return torch.randint(-2, 3, (rows, columns), generator=g).float()
    a = torch.randn(rows, columns, generator=g)
    return {"normal": a, "negative": -a.abs() - 1, "zeros": torch.zeros(rows, columns).mul(a.sign())}[kind]


matrices = st.builds(
    matrix,
    st.sampled_from([1, 2, 15, 16, 17, 70]),
    st.sampled_from([1, 5, 64, 301]),
    st.sampled_from(["normal", "ties", "negative", "zeros"]),
    st.integers(0, 99),
)


def assert_equal(ours, truth):
    for a, b in zip(ours, truth, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(a=matrices, share=st.sampled_from([0.0, 0.02, 0.5, 1.0]))
def test_topk_equals_the_reference_with_ties_to_the_lower_index(a, share):
    k = round(share * a.shape[1])
    assert_equal(topk(a, k), reference.topk(a, k))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(a=matrices, share=st.sampled_from([0.0, 0.005, 0.3, 1.0]))
def test_batch_topk_equals_the_reference(a, share):
    m = round(share * a.numel())
    assert_equal(batch_topk(a, m), reference.batch_topk(a, m))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(a=matrices, seed=st.integers(0, 99), most=st.sampled_from([0.05, 1.0]))
def test_column_topk_equals_the_reference(a, seed, most):
    m = torch.randint(0, int(most * a.shape[0]) + 1, a.shape[1:], generator=torch.Generator().manual_seed(seed))
    assert_equal(column_topk(a, m), reference.column_topk(a, m))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(a=matrices)
def test_positive_equals_the_reference(a):
    assert_equal(positive(a), reference.positive(a))


def test_positive_is_what_relu_lets_through_and_nan_of_either_sign():
    a = torch.tensor(
        [[0.0, -0.0, 1e-45, torch.inf], [-torch.inf, torch.nan, -1.0, -torch.nan], [-1.0, -1.0, -1.0, 0.0]]
    )
    indptr, columns, values = positive(a)
    assert indptr.tolist() == [0, 2, 4, 4]
    assert columns.tolist() == [2, 3, 1, 3]
    assert torch.equal(values.isnan(), torch.tensor([False, False, True, True]))


def test_nan_of_either_sign_is_the_largest():
    a = torch.randn(33, 700, generator=torch.Generator().manual_seed(0))
    a[:, 5] = torch.inf
    a[3, 600], a[3, 7] = torch.nan, -torch.nan
    a[20, 9], a[20, 10], a[20, 650] = -torch.nan, -torch.nan, -torch.inf
    assert bool(a[3, 7].signbit())
    nan = [(3, 7), (3, 600), (20, 9), (20, 10)]
    values, indices = topk(a, 3)
    assert indices[3].tolist() == [7, 600, 5]
    assert indices[20].tolist() == [9, 10, 5]
    assert values[3].isnan().tolist() == values[20].isnan().tolist() == [True, True, False]
    for indptr, columns, values in (batch_topk(a, 4), column_topk(a, a.isnan().sum(0))):
        rows = torch.repeat_interleave(torch.arange(len(a)), indptr.diff())
        assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == nan
        assert bool(values.isnan().all())


def test_batch_topk_asks_again_when_its_sample_misleads():
    # The sample is every 40th entry of 4e6: put nothing large there, and everything large elsewhere.
    a = torch.full((2000, 2000), -1.0)
    a[:, 1] = torch.arange(2000.0) + 1
    assert_equal(batch_topk(a, 1500), reference.batch_topk(a, 1500))


def test_gradients_flow_to_the_selected_entries(outputs_and_gradients, assert_same):
    a = {"a": torch.randn(9, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)}
    m = torch.arange(40) % 5
    for fast, slow in (
        (lambda a: topk(a, 6)[0], lambda a: reference.topk(a, 6)[0]),
        (lambda a: batch_topk(a, 50)[2], lambda a: reference.batch_topk(a, 50)[2]),
        (lambda a: column_topk(a, m)[2], lambda a: reference.column_topk(a, m)[2]),
    ):
        assert_same(outputs_and_gradients(fast, a, torch.float32), outputs_and_gradients(slow, a, torch.float64))


def test_empty_batch_gives_empty_selections():
    a = torch.empty(0, 5)
    assert topk(a, 3)[0].shape == (0, 3)
    assert batch_topk(a, 0)[0].tolist() == [0]
    assert column_topk(a, torch.zeros(5, dtype=torch.long))[0].tolist() == [0]
    assert positive(a)[0].tolist() == [0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a: topk(a, 6), "k=6 is outside 0..5"),
        (lambda a: batch_topk(a, 16), "m=16 is outside 0..15"),
        (lambda a: column_topk(a, torch.full((5,), 4)), "allowed is 0..3"),
        (lambda a: column_topk(a, torch.ones(4, dtype=torch.long)), "5 columns"),
    ],
)
def test_more_than_there_is_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.zeros(3, 5))


def test_compiles_without_a_graph_break():
    a = torch.randn(6, 50)
    compiled = torch.compile(lambda a: topk(a, 4)[0] * 2, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(a), topk(a, 4)[0] * 2)


def test_nan_of_either_sign_is_the_largest_on_a_gpu_too() -> None:
    from kernels.selection.gpu import topk as on_gpu  # plain torch: its order can be seen without a GPU

    negative = torch.tensor([-4194304], dtype=torch.int32).view(torch.float32)  # 0xFFC00000: NaN with its sign bit set
    assert negative.isnan().all()
    a = torch.cat([torch.tensor([1.0, -2.0]), negative, torch.tensor([torch.nan, torch.inf])])[None]
    _, order = on_gpu(a, 5)
    assert order.tolist() == [[2, 3, 4, 0, 1]]
