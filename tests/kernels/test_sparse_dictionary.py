from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from kernels import sparse_dictionary as sd
from kernels.codes import Codes
from kernels.segments import PIECE
from kernels.selection import reference as selection_reference


def inputs(tokens, d, n, seed=0):
    g = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)  # noqa: E731
    return {"x": draw(tokens, d), "w_enc": draw(d, n), "b_enc": draw(n), "w_dec": draw(n, d)}


def mask(n):
    return torch.arange(n) % 3 != 1


def autoencoder(kind, k):
    """Encode, rectify, decode by our ops."""

    def run(x, w_enc, b_enc, w_dec):
        pre = sd.preactivations(x.detach(), w_enc.detach(), b_enc.detach())
        if kind in ("topk", "among"):
            among = mask(len(b_enc)) if kind == "among" else None
            units, values = sd.encode_topk(x, w_enc, b_enc, k, pre=pre, among=among)
            return sd.decode_slots(units, values.relu(), w_dec)
        if kind == "batch":
            indptr, units, values = sd.encode_batch_topk(x, w_enc, b_enc, k * len(x), pre=pre)
        elif kind == "positive":
            indptr, units, values = sd.encode_positive(x, w_enc, b_enc, pre=pre)
        else:
            m = torch.arange(len(b_enc)) % (len(x) + 1)
            indptr, units, values = sd.encode_column_topk(x, w_enc, b_enc, m, pre=pre)
        return sd.decode_rows(indptr, units, values.relu(), w_dec)

    return run


def dense(kind, k):
    """The same by a mask on dense pre-activations: no op of ours."""

    def run(x, w_enc, b_enc, w_dec):
        pre = x @ w_enc + b_enc
        if kind in ("topk", "among"):
            ranked = pre.detach().masked_fill(~mask(len(b_enc)), -torch.inf) if kind == "among" else pre.detach()
            keep = torch.zeros_like(pre).scatter(1, selection_reference.topk(ranked, k)[1], 1.0)
        elif kind == "positive":
            keep = torch.ones_like(pre)
        else:
            m = torch.arange(len(b_enc)) % (len(x) + 1)
            indptr, units, _ = (
                selection_reference.batch_topk(pre.detach(), k * len(x))
                if kind == "batch"
                else selection_reference.column_topk(pre.detach(), m)
            )
            token = torch.repeat_interleave(indptr.diff(), output_size=len(units))
            keep = torch.zeros_like(pre).index_put((token, units), pre.new_ones(()))
        return (keep * pre).relu() @ w_dec

    return run


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    tokens=st.sampled_from([0, 1, 9, 40]), d=st.sampled_from([1, 6, 17]), n=st.sampled_from([8, 50]),
    k=st.sampled_from([1, 3, 5]), kind=st.sampled_from(["topk", "among", "batch", "column", "positive"]),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_equals_the_dense_float64_dictionary_in_every_gradient(
    outputs_and_gradients, assert_same, tokens, d, n, k, kind, seed
):
    given_ = inputs(tokens, d, n, seed)
    fast = outputs_and_gradients(autoencoder(kind, k), given_, torch.float32)
    assert_same(fast, outputs_and_gradients(dense(kind, k), given_, torch.float64))


@pytest.mark.parametrize("kind", ["topk", "among", "batch", "column"])
def test_reference_equals_the_dense_dictionary(outputs_and_gradients, assert_same, forced, kind):
    forced("reference")
    given_ = inputs(12, 5, 30)
    ours = outputs_and_gradients(autoencoder(kind, 4), given_, torch.float64)
    assert_same(ours, outputs_and_gradients(dense(kind, 4), given_, torch.float64), 1e-12)


def test_auxiliary_selection_teaches_the_encoder():
    # One popular fused encoder gives the second selection of a step no gradient at all.
    leaves = {name: t.float().requires_grad_() for name, t in inputs(10, 6, 40).items()}
    x, w_enc, b_enc, w_dec = leaves.values()
    pre = sd.preactivations(x.detach(), w_enc.detach(), b_enc.detach())
    main, _ = sd.encode_topk(x, w_enc, b_enc, 3, pre=pre)
    silent = torch.ones(40, dtype=torch.bool).index_fill(0, main.unique(), False)
    units, values = sd.encode_topk(x, w_enc, b_enc, 2, pre=pre, among=silent)
    assert silent[units].all()
    sd.decode_slots(units, values, w_dec).square().sum().backward()
    assert w_enc.grad is not None
    assert w_enc.grad[:, units.unique()].ne(0).any(0).all()
    assert w_enc.grad[:, ~silent].eq(0).all()


def test_transposed_and_contiguous_encoders_give_the_same_gradients():
    given_ = {name: t.float() for name, t in inputs(20, 8, 30).items()}
    gradients = []
    for make in (lambda w: w.clone(), lambda w: w.t().contiguous().t()):
        leaves = {name: t.clone() for name, t in given_.items()}
        leaves["w_enc"] = make(leaves["w_enc"]).requires_grad_()
        autoencoder("topk", 4)(**leaves).square().sum().backward()
        gradients.append(leaves["w_enc"].grad)
        assert leaves["w_enc"].grad.stride() == leaves["w_enc"].stride()
    torch.testing.assert_close(*gradients)


def test_repeats_to_the_bit_with_a_unit_that_fires_everywhere(outputs_and_gradients):
    given_ = inputs(3 * PIECE, 16, 40)
    given_["b_enc"][5] += 100
    first = outputs_and_gradients(autoencoder("topk", 6), given_, torch.float32)
    again = outputs_and_gradients(autoencoder("topk", 6), given_, torch.float32)
    assert all(torch.equal(first[name], again[name]) for name in first)


@pytest.mark.parametrize("density", [0.05, 0.9])
def test_decode_is_the_dense_product_for_sparse_and_for_full_codes(outputs_and_gradients, assert_same, density):
    g = torch.Generator().manual_seed(0)
    a = torch.randn(11, 60, generator=g, dtype=torch.float64) * (torch.rand(11, 60, generator=g) < density)
    rows = torch.zeros(11, 2, dtype=torch.long)
    codes = Codes.from_dense(a, rows)
    given_ = {"values": codes.values, "w_dec": torch.randn(60, 7, generator=g, dtype=torch.float64)}

    def ours(values, w_dec):
        return sd.decode(Codes(codes.indptr, codes.units, values, rows, 60), w_dec)

    def dense_product(values, w_dec):
        return a.index_put((codes.token_of_entry(), codes.units), values) @ w_dec

    fast = outputs_and_gradients(ours, given_, torch.float32)
    assert_same(fast, outputs_and_gradients(dense_product, given_, torch.float64))


def test_decode_of_no_codes_is_zero():
    rows = torch.zeros(3, 2, dtype=torch.long)
    codes = Codes.from_dense(torch.zeros(3, 9), rows)
    assert torch.equal(sd.decode(codes, torch.randn(9, 4)), torch.zeros(3, 4))


def test_a_unit_in_two_slots_counts_twice():
    w_dec = torch.randn(5, 3)
    y = sd.decode_slots(torch.tensor([[2, 2]]), torch.tensor([[1.0, 0.5]]), w_dec)
    assert torch.allclose(y[0], 1.5 * w_dec[2])


def test_frozen_decoder_gets_no_gradient_and_values_still_do():
    w_dec, values = torch.randn(5, 3), torch.ones(1, 2, requires_grad=True)
    sd.decode_slots(torch.tensor([[2, 4]]), values, w_dec).sum().backward()
    assert torch.allclose(values.grad, w_dec[[2, 4]].sum(1)[None])


def test_index_outside_the_dictionary_is_refused():
    with pytest.raises(IndexError, match="5 is outside"):
        sd.decode_slots(torch.tensor([[5]]), torch.ones(1, 1), torch.randn(5, 3))


def test_preactivations_can_write_into_a_kept_buffer():
    given_ = {name: t.float() for name, t in inputs(4, 3, 6).items() if name != "w_dec"}
    buffer = torch.empty(4, 6)
    assert sd.preactivations(**given_, out=buffer) is buffer
    assert torch.equal(buffer, sd.preactivations(**given_))


def test_flop_counter_sees_selected_entries_only():
    leaves = {name: t.float().requires_grad_() for name, t in inputs(10, 6, 40).items()}
    with FlopCounterMode(display=False) as counter:
        autoencoder("topk", 4)(**leaves).sum().backward()
    product, entries = 2 * 10 * 6 * 40, 2 * 10 * 4 * 6
    assert counter.get_total_flops() == product + 5 * entries  # decode, and gradients of values, w_dec, x, w_enc


def test_compiles_without_a_graph_break(outputs_and_gradients, assert_same):
    given_ = inputs(10, 6, 40)
    compiled = torch.compile(autoencoder("topk", 4), fullgraph=True, backend="aot_eager")
    fast = outputs_and_gradients(compiled, given_, torch.float32)
    assert_same(fast, outputs_and_gradients(autoencoder("topk", 4), given_, torch.float32), 0)
