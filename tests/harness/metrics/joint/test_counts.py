from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from harness.metrics.joint.counts import fit_null, lift, meetings, npmi
from harness.metrics.joint.supporting import LEAST, _likely_pairs, _looked_up


def codes(rows: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.cumsum([0, *map(len, rows)]), np.array([unit for row in rows for unit in row], np.int64)


def exactly_k(tokens: int, n_units: int, k: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return codes([sorted(rng.choice(n_units, k, replace=False).tolist()) for _ in range(tokens)])


def test_meetings_by_hand() -> None:
    found = meetings(*codes([[0, 1, 2], [0, 1], [], [1, 2], [3]]), n_units=4)
    assert list(zip(found.i, found.j, found.n, strict=True)) == [(0, 1, 2), (0, 2, 1), (1, 2, 2)]
    often = meetings(*codes([[0, 1, 2], [0, 1], [], [1, 2], [3]]), n_units=4, least=2)
    assert list(zip(often.i, often.j, often.n, strict=True)) == [(0, 1, 2), (1, 2, 2)]
    assert often.n_all == found.n_all == 5


def test_meetings_equal_the_dense_product_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.metrics.joint.counts._BLOCK", 7)
    indptr, units = exactly_k(50, 30, 5, seed=0)
    dense = np.zeros((50, 30), int)
    dense[np.repeat(np.arange(50), np.diff(indptr)), units] = 1
    product = dense.T @ dense
    found = meetings(indptr, units, 30)
    i, j = np.triu_indices(30, 1)
    expected = product[i, j]
    assert np.array_equal(found.n, expected[expected > 0])
    assert np.array_equal(found.i, i[expected > 0])


def test_the_null_keeps_rows_and_columns() -> None:
    rng = np.random.default_rng(1)
    rows = [sorted(rng.choice(40, rng.integers(1, 8), replace=False, p=_uneven(40)).tolist()) for _ in range(300)]
    indptr, units = codes(rows)
    null = fit_null(indptr, units, 40)
    np.testing.assert_allclose(null.tokens @ null.p, np.bincount(units, minlength=40), rtol=1e-5)
    np.testing.assert_allclose(null.p.sum(1), np.unique(np.diff(indptr)), rtol=1e-6)


def test_exactly_4_of_60_without_structure_is_flagged_at_the_stated_rate_and_not_by_independence() -> None:
    tokens, n, k = 20_000, 60, 4
    indptr, units = exactly_k(tokens, n, k, seed=2)
    i, j = np.triu_indices(n, 1)
    found = meetings(indptr, units, n)
    met = _looked_up(found.i * n + found.j, found.n, i * n + j)
    mean, variance = fit_null(indptr, units, n).expected(i, j)
    flagged = 2 * norm.sf(np.abs(met - mean) / np.sqrt(variance)) < 0.05
    assert flagged.mean() < 0.07
    assert abs(mean.mean() - tokens * k * (k - 1) / (n * (n - 1))) < 0.01 * mean.mean()
    counts = np.bincount(units, minlength=n)
    plain = counts[i] * counts[j] / tokens
    assert (2 * norm.sf(np.abs(met - plain) / np.sqrt(plain)) < 0.05).mean() > 0.3


def test_planted_partners_stand_out_and_permuting_units_changes_nothing() -> None:
    rng = np.random.default_rng(3)
    rows = []
    for _ in range(4000):
        row = set(rng.choice(30, 3, replace=False).tolist())
        if rng.random() < 0.2:
            row |= {5, 9}
        rows.append(sorted(row))
    figures = []
    for order in (np.arange(30), rng.permutation(30)):
        indptr, units = codes([sorted(order[row].tolist()) for row in rows])
        a, b = sorted((order[5], order[9]))
        found = meetings(indptr, units, 30)
        n = found.n[(found.i == a) & (found.j == b)]
        mean, _ = fit_null(indptr, units, 30).expected(np.array([a]), np.array([b]))
        figures.append(lift(n, mean)[0])
    assert figures[0] > 2
    assert figures[0] == pytest.approx(figures[1], rel=1e-6)


def test_likely_pairs_are_all_that_can_be_expected_to_meet_often_enough() -> None:
    rng = np.random.default_rng(4)
    p, tokens = rng.random((3, 25)) ** 4, np.array([50, 30, 20])
    i, j = np.triu_indices(25, 1)
    expected = (tokens[:, None] * p[:, i] * p[:, j]).sum(0)
    wanted = set(zip(i[expected >= LEAST].tolist(), j[expected >= LEAST].tolist(), strict=True))
    found = set(zip(*(part.tolist() for part in _likely_pairs(p, tokens)), strict=True))
    assert wanted <= found
    assert all(a < b for a, b in found)


def test_npmi_is_0_at_the_null_and_1_for_inseparable_units() -> None:
    assert npmi(np.array([10.0]), np.array([10.0]), 1000)[0] == 0
    assert npmi(np.array([10.0]), np.array([10.0 * 10 / 1000]), 1000)[0] == pytest.approx(1)


def _uneven(n: int) -> np.ndarray:
    weights = 1 / np.arange(1, n + 1)
    return weights / weights.sum()
