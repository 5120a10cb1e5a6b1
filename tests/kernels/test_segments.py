from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import segments
from kernels.threads import parallel


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    tokens=st.sampled_from([0, 1, 5, 700]), slots=st.sampled_from([1, 3]), n_rows=st.sampled_from([1, 2, 50]),
    silent=st.sampled_from([0.0, 0.5, 1.0]), compact=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_sums_by_row_equal_numpy_and_clear_the_rest(tokens, slots, n_rows, silent, compact, seed):
    g = np.random.default_rng(seed)
    ids = g.integers(0, n_rows, (tokens, slots))
    weights = (g.normal(size=ids.shape) * (g.random(ids.shape) >= silent)).astype(np.float32)
    source = g.normal(size=(tokens, 7)).astype(np.float32)
    groups = segments.group(ids, slots, weights, weights, n_rows)
    truth = np.zeros((n_rows, 7))
    np.add.at(truth, ids.ravel(), weights.reshape(-1, 1) * np.repeat(source.astype(np.float64), slots, 0))
    touched = np.unique(ids[weights != 0])
    assert groups.touched.tolist() == touched.tolist()
    out = np.full((len(touched) if compact else n_rows, 7), np.nan, np.float32)
    segments.sum_rows(groups, groups.first, source, out, compact)
    np.testing.assert_allclose(out, truth[touched] if compact else truth, rtol=1e-4, atol=1e-4)


def test_hot_rows_are_cut_in_pieces_and_others_are_not():
    ids = np.array([[0]] * 3 + [[1]] * (2 * segments.PIECE + 1))
    ones = np.ones(ids.shape, np.float32)
    groups = segments.group(ids, 1, ones, ones, 2)
    assert (groups.pieces[:, 2] - groups.pieces[:, 1]).tolist() == [3, segments.PIECE, segments.PIECE, 1]
    assert groups.hot.tolist() == [[1, 0, 3]]


def test_pairs_keep_the_order_of_their_tokens():
    ids = np.array([[1, 0], [0, 1], [1, 1]])
    ones = np.ones(ids.shape, np.float32)
    groups = segments.group(ids, 2, ones, ones, 2)
    assert groups.tokens.tolist() == [0, 1, 0, 1, 2, 2]


def test_an_error_in_a_thread_is_not_lost():
    def fails(start, stop):
        if stop == 100:
            raise RuntimeError("in a thread")

    with pytest.raises(RuntimeError, match="in a thread"):
        parallel(fails, 100, grain=1)
