"""Counts by hand, and what shuffled documents leave."""

import numpy as np
import pytest

from harness.metrics.joint.pairs import Fired
from harness.metrics.specialisation.information import Counted, count, information, shuffles, specialised


def fired(truth: np.ndarray) -> Fired:
    token, unit = truth.nonzero()
    ones = np.ones(len(token), np.float32)
    return Fired(token, unit, ones, ones, len(truth), len(truth), truth.shape[1])


def world(seed: int, documents: int = 60, length: int = 20) -> Counted:
    """Unit 0 fires in one domain, 1 everywhere, 2 three times as often in domain 1, 3 in one document."""
    generator = np.random.default_rng(seed)
    domain = np.arange(documents) % 2
    document = np.repeat(np.arange(documents), length)
    of = domain[document]
    truth = np.stack([
        (of == 0) & (generator.random(len(of)) < 0.5),
        generator.random(len(of)) < 0.5,
        generator.random(len(of)) < np.where(of == 1, 0.6, 0.2),
        document == 3,
    ], 1)  # fmt: skip
    return count([fired(truth)], document, domain)


def test_firings_are_counted_by_document_and_by_domain_of_equal_weight() -> None:
    truth = np.array([[1, 0], [1, 1], [0, 1], [0, 1], [0, 0], [0, 1]], bool)
    counted = count([fired(truth)], np.array([0, 0, 1, 1, 1, 1]), np.array([0, 1]))
    assert counted.firings.toarray().tolist() == [[2, 1], [0, 3]]
    assert counted.by_domain(counted.domain).tolist() == [[1, 0.5], [0, 0.75]]


def test_information_by_hand() -> None:
    assert information(np.eye(2)) == pytest.approx(1)
    assert information(np.ones((2, 3))) == pytest.approx(0)
    assert information(np.array([[1.0, 0, 1], [0, 1, 1]])) == pytest.approx(0.5)


def test_a_unit_is_of_a_domain_where_its_mass_is_twice_the_runner_ups() -> None:
    masses = np.array([[2.0, 1.9, 0, 1], [1, 1, 0, 3], [0, 0, 0, 0.5]])
    assert specialised(masses).tolist() == [0, -1, -1, 1]


def test_shuffled_documents_know_nothing_of_units_of_domains_and_all_of_units_of_documents() -> None:
    counted = world(0)
    real = counted.by_domain(counted.domain)
    dealt = shuffles(counted, 30, np.random.default_rng(1))
    assert specialised(real).tolist() == [0, -1, 1, 1]
    shares = np.mean([specialised(one) >= 0 for one in dealt], 0)
    assert shares[:3].max() < 0.1
    assert shares[3] == 1  # fires in one document: of a domain whatever the domains are
    assert information(real) > 5 * np.mean([information(one) for one in dealt])


def test_a_group_counts_as_one() -> None:
    grouped = world(0).grouped(2)
    assert grouped.firings.shape == (60, 2)
    assert grouped.firings.sum() == world(0).firings.sum()
