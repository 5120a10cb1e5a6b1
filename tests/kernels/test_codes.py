from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.codes import Codes


def rows(n):
    return torch.stack([torch.arange(n), torch.arange(n) * 2], 1)


def example():
    return Codes.from_dense(torch.tensor([[0.0, 2.0, 0.0, -1.0], [0.0, 0.0, 0.0, 0.0], [3.0, 0.0, 0.0, 4.0]]), rows(3))


def test_from_dense_keeps_what_is_not_zero_in_rows():
    codes = example()
    assert codes.indptr.tolist() == [0, 2, 2, 4]
    assert codes.units.tolist() == [1, 3, 0, 3]
    assert codes.values.tolist() == [2.0, -1.0, 3.0, 4.0]
    assert (codes.n_tokens, codes.nnz, codes.n_units) == (3, 4, 4)
    assert codes.row_lengths().tolist() == [2, 0, 2]
    assert codes.token_of_entry().tolist() == [0, 0, 2, 2]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    tokens=st.sampled_from([0, 1, 6]), slots=st.sampled_from([0, 1, 7]), n_units=st.sampled_from([1, 3, 30]),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_from_slots_sums_duplicates_sorts_and_drops_zeros(tokens, slots, n_units, seed):
    g = torch.Generator().manual_seed(seed)
    units = torch.randint(0, n_units, (tokens, slots), generator=g)
    values = torch.randint(-2, 3, (tokens, slots), generator=g).double()  # some cancel
    codes = Codes.from_slots(units, values, rows(tokens), n_units)
    dense = torch.zeros(tokens, n_units, dtype=torch.float64).scatter_add(1, units, values)
    assert torch.equal(codes.dense(), dense)
    assert torch.equal(codes.row_lengths(), (dense != 0).sum(1))
    assert (codes.values != 0).all()
    entry = codes.token_of_entry() * n_units + codes.units
    assert (entry[1:] > entry[:-1]).all()


def test_from_slots_passes_gradients_to_every_slot_that_adds_up():
    values = torch.tensor([[1.0, 2.0, 5.0]], requires_grad=True)
    codes = Codes.from_slots(torch.tensor([[4, 4, 0]]), values, rows(1), 5)
    (codes.values * torch.tensor([10.0, 1.0])).sum().backward()
    assert values.grad.tolist() == [[1.0, 1.0, 10.0]]


def test_with_values_drops_zeros_so_that_l0_stays_true():
    codes = example().with_values(torch.tensor([1.0, 0.0, 1.0, 1.0]))
    assert codes.row_lengths().tolist() == [1, 0, 2]
    assert codes.units.tolist() == [1, 0, 3]


def test_keep_drops_entries_and_nothing_else():
    codes = example().keep(torch.tensor([False, True, True, False]))
    assert codes.dense().tolist() == [[0.0, 0.0, 0.0, -1.0], [0.0] * 4, [3.0, 0.0, 0.0, 0.0]]
    assert torch.equal(codes.rows, rows(3))


def test_cat_is_one_batch_after_the_other():
    both = Codes.cat([example(), example().keep(torch.zeros(4, dtype=torch.bool)), example()])
    assert both.indptr.tolist() == [0, 2, 2, 4, 4, 4, 4, 6, 6, 8]
    assert torch.equal(both.dense()[6:], example().dense())
    with pytest.raises(ValueError, match="at least one"):
        Codes.cat([])


def test_saved_codes_come_back_with_what_was_beside_them(tmp_path):
    codes = example()
    codes.save(tmp_path / "codes.safetensors", strengths=codes.values.abs())
    again, more = Codes.load(tmp_path / "codes.safetensors")
    for name in ("indptr", "units", "values", "rows"):
        assert torch.equal(getattr(again, name), getattr(codes, name))
        assert getattr(again, name).dtype == getattr(codes, name).dtype
    assert again.n_units == 4
    assert torch.equal(more["strengths"], codes.values.abs())
