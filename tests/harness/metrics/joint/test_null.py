from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import binom, hypergeom, norm, poisson

from harness.metrics.joint import null
from harness.metrics.joint.counts import meetings
from harness.metrics.joint.firing import Firing


def exactly(tokens: int, units: int, k: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    dense = np.zeros((tokens, units))
    np.put_along_axis(dense, rng.random((tokens, units)).argsort(1)[:, :k], 1, axis=1)
    return dense


def uneven(tokens: int, units: int, seed: int) -> np.ndarray:
    """Zipf's units, 1 to 8 on a token."""
    rng = np.random.default_rng(seed)
    score = np.log(1 / np.arange(1, units + 1)) + rng.gumbel(size=(tokens, units))
    rank = (-score).argsort(1).argsort(1)
    return (rank < rng.integers(1, 9, tokens)[:, None]).astype(float)


def all_pairs(dense: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    i, j = np.triu_indices(dense.shape[1], 1)
    return i, j, (dense.T @ dense)[i, j]


def test_the_fit_keeps_rows_columns_and_all_meetings() -> None:
    dense = uneven(400, 50, seed=0)
    dense[:, 7], dense[:, 9], dense[5] = 1, 0, 0  # one always fires, one never; a token without units
    fitted = null.fit(Firing.from_dense(dense))
    np.testing.assert_allclose(fitted.p @ fitted.tokens, dense.sum(0), rtol=1e-5)
    np.testing.assert_allclose(fitted.p.sum(0), fitted.size, rtol=1e-5)
    assert np.array_equal(fitted.size, np.unique(dense.sum(1))[1:])
    assert fitted.group[5] == -1
    i, j, met = all_pairs(dense)
    assert fitted.expected(i, j)[0].sum() == pytest.approx(met.sum(), rel=1e-3)


def test_tokens_of_many_different_sizes_share_groups_and_keep_all_sums() -> None:
    rng = np.random.default_rng(1)
    dense = (rng.random((600, 200)) < rng.uniform(0.02, 0.7, 600)[:, None]).astype(float)
    fitted = null.fit(Firing.from_dense(dense))
    assert len(fitted.size) <= 50 < len(np.unique(dense.sum(1)))
    np.testing.assert_allclose(fitted.p @ fitted.tokens, dense.sum(0), rtol=1e-5)


def test_exactly_4_of_60_without_structure_is_flagged_at_the_stated_rate_and_by_independence_half_the_time() -> None:
    dense = exactly(20_000, 60, 4, seed=2)
    i, j, met = all_pairs(dense)
    mean, variance = null.fit(Firing.from_dense(dense)).expected(i, j)
    p = null.p_values(met, mean, variance)
    assert (p < 0.05).mean() < 0.06
    assert mean.mean() == pytest.approx(20_000 * 4 * 3 / (60 * 59), rel=1e-6)
    rates = dense.sum(0)
    plain = rates[i] * rates[j] / 20_000
    assert (2 * norm.sf(np.abs(met - plain) / np.sqrt(plain)) < 0.05).mean() > 0.4
    assert null.discoveries(p, len(p)).sum() == 0


def test_mean_and_variance_are_those_of_curveball_draws() -> None:
    dense = uneven(1500, 40, seed=3)
    firing, rng = Firing.from_dense(dense), np.random.default_rng(4)
    i, j, _ = all_pairs(dense)
    mean, variance = null.fit(firing).expected(i, j)
    draws = []
    for _ in range(150):
        drawn = null.curveball(firing, rng, within_documents=False)
        again = np.zeros_like(dense)
        again[drawn.token, drawn.units] = 1
        draws.append(all_pairs(again)[2])
    draws = np.array(draws)
    common = draws.mean(0) > 1
    bias = ((mean - draws.mean(0)) / draws.std(0))[common]
    assert np.abs(bias).mean() < 0.15
    assert np.sqrt(variance / draws.var(0))[common].mean() == pytest.approx(1, abs=0.05)
    p = np.array([null.p_values(met, mean, variance) for met in draws])
    assert 0.01 < (p < 0.05)[:, common].mean() < 0.06


def test_with_many_units_a_token_the_moments_are_the_hypergeometrics() -> None:
    # 200 of 400 on a token: crowding is next to nothing.
    dense = exactly(400, 400, 200, seed=5)
    mean, variance = null.fit(Firing.from_dense(dense)).expected(np.array([0]), np.array([1]))
    a, b = int(dense[:, 0].sum()), int(dense[:, 1].sum())
    assert variance[0] == pytest.approx(hypergeom(400, a, b).var(), rel=0.02)
    assert mean[0] == pytest.approx(hypergeom(400, a, b).mean(), rel=0.01)


def test_a_planted_pair_is_found_and_names_of_units_do_not_matter() -> None:
    dense = exactly(4000, 30, 3, seed=6)
    both = np.random.default_rng(7).random(4000) < 0.05
    dense[np.ix_(both, np.array([5, 9]))] = 1
    for order in (np.arange(30), np.random.default_rng(8).permutation(30)):
        met = meetings(Firing.from_dense(dense[:, order]))
        mean, variance = null.fit(Firing.from_dense(dense[:, order])).expected(met.i, met.j)
        found = null.discoveries(null.p_values(met.n, mean, variance), 30 * 29 // 2) & (met.n > mean)
        pairs = {frozenset((int(order[i]), int(order[j]))) for i, j in zip(met.i[found], met.j[found], strict=True)}
        assert pairs == {frozenset((5, 9))}


def test_tails_are_those_of_the_binomial_and_the_poisson() -> None:
    n, mean = np.array([9.0, 0.0, 12.0]), np.array([2.0, 5.0, 3.0])
    found = null.p_values(n, mean, mean * 0.9)
    expected = [2 * binom.sf(8, 20, 0.1), 2 * binom.cdf(0, 50, 0.1), 2 * binom.sf(11, 30, 0.1)]
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    found = null.p_values(n, mean, mean)
    expected = [2 * poisson.sf(8, 2), 2 * poisson.cdf(0, 5), 2 * poisson.sf(11, 3)]
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert null.p_values(np.array([3.0]), np.array([3.0]), np.array([0.0]))[0] == 1  # nothing is left to chance


def test_pruned_pairs_count_as_tested_and_not_found() -> None:
    p = np.array([0.001, 0.004, 0.2])
    assert null.discoveries(p, 3).tolist() == [True, True, False]
    assert null.discoveries(p, 49).tolist() == [True, False, False]  # 0.001 ≤ 0.05 / 49, 0.004 > 0.1 / 49
    assert not null.discoveries(p, 51).any()
    padded = np.concatenate([p, np.ones(20)])
    assert np.array_equal(null.discoveries(p, 23), null.discoveries(padded, 23)[:3])


def test_a_pool_makes_its_units_meet_and_within_it_they_do_not() -> None:
    rng = np.random.default_rng(9)
    dense = np.zeros((6000, 60))
    pool = rng.integers(0, 3, 6000)
    chosen = pool[:, None] * 20 + rng.random((6000, 20)).argsort(1)[:, :4]
    np.put_along_axis(dense, chosen, 1, axis=1)
    firing = Firing.from_dense(dense)

    def flagged(firing: Firing) -> float:
        met = meetings(firing)
        mean, variance = null.fit(firing).expected(met.i, met.j)
        return float((null.p_values(met.n, mean, variance) < 0.05).mean())

    assert flagged(firing) > 0.9
    assert np.mean([flagged(firing.pool(number, 20)) for number in range(3)]) < 0.07


def test_documents_add_up_to_all_meetings_and_their_order_does_not_matter() -> None:
    dense = uneven(300, 20, seed=10)
    document = np.repeat([4, 1, 7], 100)
    firing = Firing.from_dense(dense, document)
    pairs = np.array([[0, 1], [2, 5], [1, 19]])
    fitted = null.fit(firing)
    met, mean, documents = null.by_document(firing, fitted, pairs)
    assert documents.tolist() == [1, 4, 7]
    assert met[:, 0].tolist() == [int((dense[100:200, a] * dense[100:200, b]).sum()) for a, b in pairs]
    np.testing.assert_allclose(mean.sum(1), fitted.expected(pairs[:, 0], pairs[:, 1])[0], rtol=1e-9)
    order = np.r_[200:300, 0:100, 100:200]
    moved = Firing.from_dense(dense[order], document[order])
    np.testing.assert_allclose(null.by_document(moved, null.fit(moved), pairs)[1], mean, rtol=1e-6)


def test_curveball_within_documents_keeps_rows_columns_and_every_units_values() -> None:
    rng = np.random.default_rng(11)
    dense = uneven(120, 15, seed=12) * rng.uniform(1, 2, (120, 15))
    document = np.repeat([0, 1, 2], 40)
    drawn = null.curveball(Firing.from_dense(dense, document), rng, within_documents=True)
    again = np.zeros_like(dense)
    again[drawn.token, drawn.units] = drawn.values
    assert np.array_equal((again > 0).sum(1), (dense > 0).sum(1))
    for number, unit in itertools.product(range(3), range(15)):
        old, new = dense[document == number, unit], again[document == number, unit]
        np.testing.assert_allclose(np.sort(new), np.sort(old), rtol=1e-6)
    assert ((again > 0) != (dense > 0)).mean() > 0.1
    assert np.all(np.diff(drawn.units)[np.diff(drawn.token) == 0] > 0)


def test_tokens_of_one_unit_meet_never() -> None:
    fitted = null.fit(Firing.from_dense(exactly(50, 6, 1, seed=13)))
    mean, variance = fitted.expected(np.array([0]), np.array([1]))
    assert mean[0] == pytest.approx(0, abs=1e-9)
    assert variance[0] == pytest.approx(0, abs=1e-9)
    assert np.abs(fitted.each(np.array([0]), np.array([1]))).max() < 1e-9
