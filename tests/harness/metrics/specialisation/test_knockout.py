"""A model whose units are known: one for each domain, one that nobody needs."""

from __future__ import annotations

import numpy as np
import torch

from harness.corpus.stored import Batch
from harness.metrics.specialisation.knockout import as_often, rise
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
    """Unit 0 tells what follows words 0 and 1, unit 1 what follows 2 and 3, unit 2 reads all and writes nothing."""
    model = silent(layers=1, units=4)
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.lm_head.weight[:2, 6] = 3.0
        model.lm_head.weight[2:4, 7] = 3.0
    unit(model, 0, 0, axis(0) + axis(1), axis(6))
    unit(model, 0, 1, axis(2) + axis(3), axis(7))
    unit(model, 0, 2, axis(0) + axis(1) + axis(2) + axis(3), axis(5, 1e-6))

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
    rises = rise(made, [{site: np.array([0])}, {site: np.array([2])}, {site: np.array([], np.int64)}], 8)
    domain = TwoDomains().all.domain[:, 1:].reshape(-1)
    assert rises[0][domain == 0].mean() > 0.5
    assert rises[0][domain == 1].abs().max() < 1e-5
    assert rises[1].abs().max() < 1e-4
    assert rises[2].abs().max() == 0


def test_the_control_fires_as_often_and_shares_no_unit() -> None:
    generator = np.random.default_rng(0)
    counts = generator.integers(0, 400, 300)
    chosen = np.sort(generator.choice(np.flatnonzero(counts > 0), 40, replace=False))
    other = as_often(chosen, counts, generator)
    assert len(other) == 40
    assert not np.isin(other, chosen).any()
    assert (counts[other] > 0).all()
    assert np.abs(np.sort(counts[other]) - np.sort(counts[chosen])).max() < 25


def test_where_there_are_no_others_fewer_are_taken() -> None:
    assert as_often(np.array([0, 1]), np.array([5, 5, 3, 0]), np.random.default_rng(0)).tolist() == [2]
