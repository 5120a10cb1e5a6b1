from __future__ import annotations

import numpy as np
import pytest
import torch

from harness.metrics.joint.counts import lift, meetings, npmi, phi, usable
from harness.metrics.joint.firing import Firing
from harness.metrics.joint.pairs import Fired


def rows(*units: list[int], n_units: int) -> Firing:
    dense = np.zeros((len(units), n_units))
    for token, row in enumerate(units):
        dense[token, row] = 1
    return Firing.from_dense(dense)


def random(tokens: int, units: int, seed: int) -> tuple[np.ndarray, Firing]:
    dense = np.random.default_rng(seed).random((tokens, units)) < np.linspace(0, 0.4, units)
    return dense.astype(int), Firing.from_dense(dense.astype(float))


def test_meetings_by_hand_and_what_pruning_drops_is_counted() -> None:
    firing = rows([0, 1, 2], [0, 1], [], [1, 2], [3], n_units=4)
    found = meetings(firing)
    assert list(zip(found.i, found.j, found.n, strict=True)) == [(0, 1, 2), (0, 2, 1), (1, 2, 2)]
    often = meetings(firing, least=2)
    assert list(zip(often.i, often.j, often.n, strict=True)) == [(0, 1, 2), (1, 2, 2)]
    assert (often.distinct, often.n_all) == (found.distinct, found.n_all) == (3, 5)


@pytest.mark.parametrize("threads", [1, 2])
def test_meetings_equal_the_dense_product(threads: int) -> None:
    dense, firing = random(200, 300, seed=0)
    product = dense.T @ dense
    i, j = np.triu_indices(300, 1)
    kept = product[i, j] >= 3
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = meetings(firing, least=3)
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(np.stack([found.i, found.j, found.n]), np.stack([i[kept], j[kept], product[i, j][kept]]))
    assert found.n_all == product[i, j].sum()
    assert found.distinct == (product[i, j] > 0).sum()


def test_permuting_tokens_changes_nothing_and_permuting_units_only_their_names() -> None:
    dense, firing = random(100, 40, seed=1)
    rng = np.random.default_rng(2)
    again = meetings(Firing.from_dense(dense[rng.permutation(100)].astype(float)))
    found = meetings(firing)
    assert np.array_equal(again.n, found.n)
    order = rng.permutation(40)
    moved = meetings(Firing.from_dense(dense[:, order].astype(float)))
    by_name = {frozenset((order[i], order[j])): n for i, j, n in zip(moved.i, moved.j, moved.n, strict=True)}
    assert by_name == {frozenset((i, j)): n for i, j, n in zip(found.i, found.j, found.n, strict=True)}


def test_scores_by_hand() -> None:
    # 1000 tokens; the pair met 10 times, on 20 and 50 tokens, so independence expects 1.
    n, e = np.array([10.0]), np.array([1.0])
    assert lift(n, e)[0] == 10
    assert npmi(n, e, 1000)[0] == pytest.approx(np.log(10) / np.log(100))
    a, b = np.zeros(1000), np.zeros(1000)
    a[:20], b[10:60] = 1, 1
    assert phi(n, e, np.array([20]), np.array([50]), 1000)[0] == pytest.approx(np.corrcoef(a, b)[0, 1])


def test_scores_are_0_at_the_null_and_1_for_inseparable_units() -> None:
    ten = np.array([10.0])
    assert npmi(ten, ten, 1000)[0] == 0
    assert npmi(ten, np.array([0.1]), 1000)[0] == pytest.approx(1)
    assert phi(ten, np.array([0.1]), np.array([10]), np.array([10]), 1000)[0] == pytest.approx(1)
    assert phi(ten, ten, np.array([1000]), np.array([10]), 1000)[0] == 0
    assert npmi(np.array([0.0, 1000]), np.array([1.0, 1000]), 1000).tolist() == [-1, 0]  # never, and on every token


def test_units_that_fire_too_rarely_or_nearly_always_are_left_out() -> None:
    dense = np.zeros((10, 3))
    dense[:1, 0], dense[:4, 1], dense[:9, 2] = 1, 1, 1
    assert usable(Firing.from_dense(dense), fewest=2, most=0.5).tolist() == [False, True, False]


def test_firing_orders_units_within_tokens_and_knows_columns_and_pools() -> None:
    token, unit = np.array([0, 0, 2, 2, 2]), np.array([5, 1, 0, 4, 3])
    value = np.array([1.0, -2.0, 3.0, 4.0, 5.0], np.float32)
    firing = Firing.of(Fired(token, unit, value, abs(value), 3, 3, 6), np.array([7, 7, 8]))
    assert firing.units.tolist() == [1, 5, 0, 3, 4]
    assert firing.values.tolist() == [-2, 1, 3, 5, 4]
    assert firing.indptr.tolist() == [0, 2, 2, 5]
    assert firing.values[firing.column(4)].tolist() == [4]
    assert firing.together(3, 4).tolist() == [2]
    pool = firing.pool(1, 3)  # units 3, 4, 5; token 1 does not use it
    assert pool.units.tolist() == [2, 0, 1]
    assert pool.indptr.tolist() == [0, 1, 3]
    assert pool.document.tolist() == [7, 8]
