"""What is learnt on dev and told on eval: worlds whose answer is known, and nulls."""

import numpy as np
import pytest

from harness.metrics.joint.pairs import Fired
from harness.metrics.specialisation.information import (
    Counted,
    count,
    dealt,
    information,
    specialised,
    stays,
)


def fired(truth: np.ndarray) -> Fired:
    token, unit = truth.nonzero()
    ones = np.ones(len(token), np.float32)
    return Fired(token, unit, ones, ones, len(truth), len(truth), truth.shape[1])


def bits(dev: Counted, held_out: Counted, seed: int = 0) -> float:
    told, mass = information(dev, held_out, np.random.default_rng(seed)).sum(0)
    return float(told / mass)


def of_domains(documents: int, seed: int, domains: int = 7, copies: int = 1, idle: int = 0) -> Counted:
    """One of `copies` units fires on every token, those of the domain's own."""
    generator = np.random.default_rng(seed)
    domain = np.repeat(np.arange(domains), documents)
    document = np.repeat(np.arange(len(domain)), 40)
    unit = domain[document] * copies + generator.integers(0, copies, len(document))
    ones = np.ones(len(unit), np.float32)
    one = Fired(np.arange(len(unit)), unit, ones, ones, len(unit), len(unit), domains * copies + idle)
    return count(one, document, domain, domains)


def null(documents: int, seed: int, lengths: tuple[int, ...], units: int = 300, topics: float = 2.0) -> Counted:
    """Every document has units of its own that it prefers, and its domain says nothing; documents of domain d have
    `lengths[d]` tokens."""
    generator = np.random.default_rng(seed)
    domain = np.repeat(np.arange(len(lengths)), documents)
    document = np.repeat(np.arange(len(domain)), np.array(lengths)[domain])
    taste = np.exp(topics * generator.standard_normal((len(domain), units)))
    taste /= taste.sum(1, keepdims=True)
    unit = np.array([generator.choice(units, p=taste[one]) for one in document])
    ones = np.ones(len(unit), np.float32)
    return count(
        Fired(np.arange(len(unit)), unit, ones, ones, len(unit), len(unit), units), document, domain, len(lengths)
    )


def test_firings_are_counted_by_document_and_by_domain_of_equal_weight() -> None:
    truth = np.array([[1, 0], [1, 1], [0, 1], [0, 1], [0, 0], [0, 1]], bool)
    counted = count(fired(truth), np.array([0, 0, 1, 1, 1, 1]), np.array([0, 1]), 2)
    assert counted.firings.toarray().tolist() == [[2, 1], [0, 3]]
    assert counted.by_domain().tolist() == [[1, 0.5], [0, 0.75]]
    assert counted.often(3, 1).tolist() == [False, True]
    assert counted.often(1, 2).tolist() == [False, True]


@pytest.mark.parametrize("documents", [2, 10])
@pytest.mark.parametrize("copies", [1, 20])
def test_units_of_domains_tell_them_however_few_the_documents_and_however_often_a_unit_stands_there(
    documents: int, copies: int
) -> None:
    found = bits(of_domains(documents, 0, copies=copies), of_domains(documents, 1, copies=copies))
    assert np.log2(7) - 0.4 < found <= np.log2(7)  # of a unit that fired four times one cannot be sure


def test_idle_units_change_nothing() -> None:
    plain = bits(of_domains(6, 0), of_domains(6, 1))
    assert bits(of_domains(6, 0, idle=500), of_domains(6, 1, idle=500)) == pytest.approx(plain, abs=1e-9)


@pytest.mark.parametrize("lengths", [(60, 60, 60), (400, 40, 40), (20, 60, 180)])
def test_units_of_documents_tell_no_domain_whatever_the_documents_lengths(lengths: tuple[int, ...]) -> None:
    found = [bits(null(8, seed, lengths), null(8, seed + 100, lengths)) for seed in range(6)]
    assert -0.05 < np.mean(found) < 0.01


def test_a_unit_is_of_a_domain_where_its_mass_is_twice_the_runner_ups() -> None:
    masses = np.array([[2.0, 1.9, 0, 1], [1, 1, 0, 3], [0, 0, 0, 0.5]])
    assert specialised(masses).tolist() == [0, -1, -1, 1]


def test_a_unit_of_one_document_does_not_stay_and_one_of_a_domain_does() -> None:
    domain, document = np.arange(20) % 2, np.repeat(np.arange(20), 10)
    of = domain[document]
    dev = count(fired(np.stack([of == 0, document == 3], 1)), document, domain, 2)
    held_out = count(fired(np.stack([of == 0, document == 4], 1)), document, domain, 2)
    told = specialised(dev.by_domain())
    assert told.tolist() == [0, 1]
    assert stays(told, held_out).tolist() == [True, False]


def test_domains_are_dealt_out_among_documents_of_like_length() -> None:
    domain = np.repeat([0, 1], 50)
    tokens = np.concatenate([np.arange(100, 150), np.arange(10, 60)])  # domain 0 has the long ones
    totals = []
    for seed in range(20):
        new = dealt(domain, tokens, np.random.default_rng(seed))
        assert sorted(new) == sorted(domain)
        totals.append(tokens[new == 0].sum())
    assert np.mean(totals) == pytest.approx(tokens[domain == 0].sum(), rel=0.05)


def test_a_group_counts_as_one() -> None:
    counted = of_domains(3, 0, domains=2, copies=2)
    grouped = counted.grouped(2)
    assert grouped.firings.shape == (6, 2)
    assert grouped.firings.sum() == counted.firings.sum()
