from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from kernels.product_keys import reference, search


def inputs(tokens, heads, n, d, shared, seed, whole_numbers=False):
    g = torch.Generator().manual_seed(seed)
    shapes = {
        "q1": (tokens, heads, d), "q2": (tokens, heads, d),
        "keys1": (1 if shared else heads, n, d), "keys2": (1 if shared else heads, n, d),
    }  # fmt: skip
    if whole_numbers:
        return {name: torch.randint(-2, 3, shape, generator=g).double() for name, shape in shapes.items()}
    return {name: torch.randn(shape, generator=g, dtype=torch.float64) for name, shape in shapes.items()}


cases = {
    "tokens": st.sampled_from([0, 1, 6]), "heads": st.sampled_from([1, 3]), "n": st.sampled_from([1, 2, 7, 40]),
    "d": st.sampled_from([1, 5]), "shared": st.booleans(), "k": st.sampled_from([1, 3, 16, 64]),
    "seed": st.integers(0, 99),
}  # fmt: skip


@settings(max_examples=30, deadline=None, derandomize=True)
@given(**cases)
def test_equals_the_float64_reference_in_scores_and_gradients(
    outputs_and_gradients, assert_same, tokens, heads, n, d, shared, k, seed
):
    k = min(k, n * n)
    given_ = inputs(tokens, heads, n, d, shared, seed)
    fast = outputs_and_gradients(lambda **g: search(**g, k=k)[0], given_, torch.float32)
    slow = outputs_and_gradients(lambda **g: reference.search(**g, k=k)[0], given_, torch.float64)
    assert_same(fast, slow)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(**cases)
def test_ties_go_to_the_lower_index(tokens, heads, n, d, shared, k, seed):
    given_ = {name: t.float() for name, t in inputs(tokens, heads, n, d, shared, seed, whole_numbers=True).items()}
    scores, indices = search(**given_, k=min(k, n * n))
    true_scores, true_indices = reference.search(**given_, k=min(k, n * n))
    assert torch.equal(scores, true_scores)
    assert torch.equal(indices, true_indices)


@pytest.mark.parametrize("k", [1, 5, 24])
def test_halves_are_enough(k):
    # `best` is what is taken when pairs do not fit into 31 bits: it must agree with all n² sums.
    given_ = {name: t.float() for name, t in inputs(5, 1, 9, 3, True, 0, whole_numbers=True).items()}
    halves = [(given_[q] @ given_[key].mT)[:, 0] for q, key in (("q1", "keys1"), ("q2", "keys2"))]
    scores, pairs = reference.best(*halves, k)
    true_scores, true_pairs = reference.search(**given_, k=k)
    assert torch.equal(scores, true_scores[:, 0])
    assert torch.equal(pairs, true_pairs[:, 0])


def test_repeats_to_the_bit(outputs_and_gradients):
    given_ = inputs(50, 2, 30, 8, False, 1)
    run = lambda: outputs_and_gradients(lambda **g: search(**g, k=12)[0], given_, torch.float32)  # noqa: E731
    first, again = run(), run()
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_reference_passes_gradcheck():
    given_ = inputs(2, 2, 3, 2, False, 0)
    assert torch.autograd.gradcheck(
        lambda *g: reference.search(*g, 3)[0], [t.requires_grad_() for t in given_.values()]
    )


def test_flop_counter_sees_two_products_forward():
    given_ = {name: t.float() for name, t in inputs(6, 2, 10, 4, False, 0).items()}
    with FlopCounterMode(display=False) as counter:
        search(**given_, k=3)
    assert counter.get_total_flops() == 2 * (2 * 6 * 2 * 10 * 4)


def test_compiles_without_a_graph_break(outputs_and_gradients, assert_same):
    given_ = inputs(6, 2, 10, 4, True, 0)
    eager = lambda **g: search(**g, k=3)[0] * 2  # noqa: E731
    compiled = torch.compile(eager, fullgraph=True, backend="aot_eager")
    fast = outputs_and_gradients(compiled, given_, torch.float32)
    assert_same(fast, outputs_and_gradients(eager, given_, torch.float32))


@pytest.mark.parametrize(
    ("k", "change", "message"),
    [(0, {}, "k=0 is outside 1..9"), (10, {}, "k=10 is outside 1..9"), (2, {"keys2": torch.zeros(3, 3, 2)}, "1 or 2")],
)
def test_what_cannot_be_is_refused(k, change, message):
    with pytest.raises(ValueError, match=message):
        search(**{**inputs(2, 2, 3, 2, False, 0), **change}, k=k)
