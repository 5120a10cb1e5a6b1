"""A model whose units are known: one for each domain, one that nobody needs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from harness.corpus.stored import Batch
from harness.metrics.joint.pairs import fired
from harness.metrics.specialisation.domains import Targets, _Lost, knocked_out  # pyright: ignore[reportPrivateUsage]
from harness.metrics.specialisation.information import Counted, count
from harness.metrics.specialisation.knockout import as_often, like, run
from harness.systems.cost import Cost
from harness.systems.evaluation import Evaluation
from harness.systems.system import Encoded, Site

from ..faithfulness.conftest import Split, axis, silent, system, unit


class TwoDomains(Split):
    """Domain 0 says words 0 and 1 in turn, domain 1 words 2 and 3."""

    def __init__(self, sequences: int = 8) -> None:
        start = torch.arange(sequences)[:, None] % 2
        ids = (torch.arange(12)[None] + torch.arange(sequences)[:, None] // 2) % 2 + 2 * start
        domain = start.expand(-1, 12).contiguous()
        document = torch.arange(sequences)[:, None].expand(-1, 12).contiguous()
        self.all = Batch(ids, document, domain, torch.full_like(ids, 2), torch.full_like(ids, -1))


def evaluation() -> Evaluation:
    """Unit 0 tells what follows words 0 and 1, unit 1 what follows 2 and 3; others read all and write nothing."""
    model = silent(layers=1, units=10)
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.lm_head.weight[:2, 6] = 3.0
        model.lm_head.weight[2:4, 7] = 3.0
    unit(model, 0, 0, axis(0) + axis(1), axis(6))
    unit(model, 0, 1, axis(2) + axis(3), axis(7))
    for idle in (2, 4, 5, 6, 7, 8, 9):
        unit(model, 0, idle, axis(0) + axis(1) + axis(2) + axis(3), axis(5, 1e-6))

    def load_codes(_site: Site) -> Encoded:
        raise AssertionError("nothing here reads stored codes")

    split = TwoDomains()
    return Evaluation(
        system=system(model), split=split, dev=split, sequences=8, codes_sequences=8, batch_sequences=3,  # pyright: ignore
        resamples=50, load_codes=load_codes, cost=Cost(1, 1, 1.0, 1.0, 1, 1.0, 1.0, 1),
    )  # fmt: skip


def test_a_domain_without_its_unit_loses_and_the_other_does_not() -> None:
    made = evaluation()
    site = made.system.sites[0]
    rises = run(made, [{site: np.array([0])}, {site: np.array([2])}, {site: np.array([], np.int64)}], 8).rises
    domain = TwoDomains().all.domain[:, 1:].reshape(-1)
    assert rises[0][domain == 0].mean() > 0.5
    assert rises[0][domain == 1].abs().max() < 1e-5
    assert rises[1].abs().max() < 1e-4
    assert rises[2].abs().max() == 0


def test_units_of_domains_are_found_and_lose_all_there_and_nothing_elsewhere() -> None:
    made = evaluation()
    dev = fired(made, made.batches(dev=True), 16)
    document, domain = TwoDomains().all.document.reshape(-1).numpy(), np.arange(8) % 2
    counted: dict[Site, Counted] = {site: count(one, document, domain, 2) for site, one in dev.items()}
    found = {
        one.name.removeprefix("specialisation/"): one
        for one in knocked_out(made, dev, counted, 8, {0: "a", 1: "b"}, np.random.default_rng(0))
    }
    assert found["knockout_own"].value == pytest.approx(1, abs=1e-3)
    assert found["knockout_elsewhere"].value == pytest.approx(0, abs=1e-3)
    assert found["knockout_domains"].value == 2
    assert found["knockout_units"].value == 1
    assert found["without_a_in_a"].value > 0.2 > 1e-4 > abs(found["without_a_in_b"].value)
    replicates = found["knockout_selectivity"].replicates
    assert replicates is not None
    assert np.isfinite(replicates).mean() > 0.9
    assert found["knockout_domains"].replicates is None  # a count of few, resampled, has its value outside its interval


def lost(rises: np.ndarray, domain: np.ndarray, n_domains: int) -> np.ndarray:
    """Figures of rises `[1 + 5 · domains, targets]`; every target is a document of one byte."""
    n = len(domain)
    where = Targets(np.arange(n), domain, np.ones(n), np.arange(n))
    of = _Lost(rises, where, np.arange(n_domains))
    return of.figures(of.columns().sum(0, keepdims=True))[0]


def test_shares_are_of_what_is_lost_with_all_units_off_and_every_domain_counts_alike() -> None:
    domain = np.array([0, 0, 1, 1])
    everything = np.array([10.0, 10, 0.1, 0.1])
    own_0, own_1 = np.array([5.0, 5, 0.01, 0.01]), np.array([1.0, 1, 0.09, 0.09])
    none = np.zeros((4, 4))
    own, elsewhere, selectivity, random, above, told, counted = lost(
        np.stack([everything, own_0, *none, own_1, *none]), domain, 2
    )
    assert own == pytest.approx((0.5 + 0.9) / 2)
    assert elsewhere == pytest.approx(0.1)
    assert selectivity == pytest.approx(0.6)
    assert (random, above, told, counted) == (0, pytest.approx(0.6), 2, 2)


def test_a_domain_where_the_layers_do_nothing_does_not_count() -> None:
    domain = np.array([0, 0, 1, 1, 2])
    everything = np.array([1.0, 1, 1, 1, 0.001])
    rows = [everything]
    for number in range(3):
        rows += [np.where(domain == number, 0.4, 0.1), *np.zeros((4, 5))]
    found = lost(np.stack(rows), domain, 3)
    assert found[6] == 2
    assert found[0] == pytest.approx(0.4)
    assert found[1] == pytest.approx(0.1)
    assert np.isnan(lost(np.stack(rows) * 1e-3, domain, 3)).all()


def test_the_control_writes_as_much_and_may_be_any_unit() -> None:
    """So that where every unit is of some domain the control is no better than blind."""
    generator = np.random.default_rng(0)
    size = np.abs(generator.standard_normal(400)) * (generator.random(400) < 0.7)
    chosen = np.sort(generator.choice(np.flatnonzero(size > 0), 60, replace=False))
    other = like(chosen, size, generator)
    assert len(other) == len(set(other.tolist())) == 60
    assert (size[other] > 0).all()
    assert size[other].sum() == pytest.approx(size[chosen].sum(), rel=0.1)
    shared = np.mean([np.isin(like(chosen, size, generator), chosen).mean() for _ in range(30)])
    assert shared == pytest.approx(60 / (size > 0).sum(), abs=0.06)


def test_a_control_that_may_not_share_units_shares_none() -> None:
    generator = np.random.default_rng(0)
    counts = generator.integers(0, 400, 300)
    chosen = np.sort(generator.choice(np.flatnonzero(counts > 0), 40, replace=False))
    other = as_often(chosen, counts, generator)
    assert len(other) == 40
    assert not np.isin(other, chosen).any()
    assert (counts[other] > 0).all()
    assert np.abs(np.sort(counts[other]) - np.sort(counts[chosen])).mean() < 20


def test_where_there_are_no_others_fewer_are_taken() -> None:
    assert as_often(np.array([0, 1]), np.array([5, 5, 3, 0]), np.random.default_rng(0)).tolist() == [2]
