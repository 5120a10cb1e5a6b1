"""Documents and pairs are resampled together."""

from __future__ import annotations

import numpy as np

from harness.metrics.joint.resampling import pair_means


def world(rng: np.random.Generator, of_pairs: float, of_documents: float) -> tuple[np.ndarray, np.ndarray]:
    """40 pairs of 30 contexts in 25 documents. values `[pairs, contexts, 1]`, documents `[pairs, contexts]`."""
    document = rng.integers(0, 25, (40, 30))
    values = of_pairs * rng.standard_normal((40, 1)) + of_documents * rng.standard_normal(25)[document]
    return (values + 0.1 * rng.standard_normal(values.shape))[:, :, None], document


def test_the_value_is_the_plain_mean_and_replicates_scatter_around_it() -> None:
    values, document = world(np.random.default_rng(0), 1.0, 1.0)
    means = pair_means(values, document, 25, 500)
    np.testing.assert_allclose(means.value[:, 0], values[:, :, 0].mean(1))
    assert means.replicates.shape == (500, 40, 1)
    assert abs(means.replicates.mean() - values.mean()) < 0.1


def test_the_interval_holds_the_truth_where_pairs_differ_where_documents_do_and_where_both_do() -> None:
    for of_pairs, of_documents in ((1.0, 0.0), (0.0, 1.0), (1.0, 1.0)):
        hits = 0
        for seed in range(100):
            values, document = world(np.random.default_rng([seed, 1]), of_pairs, of_documents)
            replicates = np.nanmean(pair_means(values, document, 25, 200).replicates[:, :, 0], 1)
            low, high = np.quantile(replicates, [0.025, 0.975])
            hits += low <= 0 <= high
        assert hits >= 86, (of_pairs, of_documents)  # P(fewer of 100 at 93%) = 1%; it is not meant to be exact


def test_resampling_documents_alone_would_be_too_narrow_where_pairs_differ() -> None:
    values, document = world(np.random.default_rng(3), 1.0, 0.3)
    means = pair_means(values, document, 25, 400)
    both = np.nanmean(means.replicates[:, :, 0], 1).std()
    assert both > 1.7 * 0.3 / 5  # of documents alone: 0.3 / sqrt(25)
    assert 0.5 < both / np.sqrt(1 / 40 + 0.09 / 25) < 1.5
