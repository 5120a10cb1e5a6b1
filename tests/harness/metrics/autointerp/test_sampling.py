from collections import Counter

import numpy as np
import pytest

from harness.metrics.autointerp.contexts import UnitContexts
from harness.metrics.autointerp.firings import Firings
from harness.metrics.autointerp.sampling import draw, stratum_of

EDGES = (0.01, 0.1, 0.5)


def firings(counts: list[int], n_tokens: int = 100) -> Firings:
    tokens = np.concatenate([np.arange(count) for count in counts])
    starts = np.concatenate([[0], np.cumsum(counts)])
    return Firings("s", 40, n_tokens, np.arange(len(counts)), starts, tokens, np.ones(len(tokens), np.float32))


def contexts(column: int, density: float) -> UnitContexts:
    return UnitContexts("s", column, density, (), (), (), (), (), ())


def test_strata_are_half_open_and_what_is_outside_is_in_none() -> None:
    assert stratum_of(np.array([0.0, 0.009, 0.01, 0.0999, 0.1, 0.49, 0.5, 1.0]), EDGES).tolist() == [
        -1, -1, 0, 0, 1, 1, -1, -1,
    ]  # fmt: skip


def test_strata_give_equally_many_units_and_count_alike() -> None:
    made = firings([2] * 20 + [20] * 6 + [90] * 4)
    sample = draw(
        {"a": made}, 10, EDGES, lambda _, c: contexts(c, float(made.counts[c] / 100)), np.random.default_rng(0)
    )
    assert Counter(drawn.stratum for drawn in sample.units) == {0: 5, 1: 5}
    assert [drawn.weight for drawn in sample.units] == [0.1] * 10
    # A firing of the rare stratum stands for 20 units of density 0.02, one of the common for 6 of 0.2.
    rare, common = sample.units[0].firing_weight, sample.units[-1].firing_weight
    assert rare == pytest.approx(0.02 * 20 / 5)
    assert common == pytest.approx(0.2 * 6 / 5)
    assert sample.outside == pytest.approx(14 / 40)  # 4 always on, 10 dead
    assert len({drawn.column for drawn in sample.units}) == 10


def test_a_short_stratum_is_made_up_by_the_others_and_still_counts_alike() -> None:
    made = firings([2] * 20 + [20] * 2)
    sample = draw(
        {"a": made}, 10, EDGES, lambda _, c: contexts(c, float(made.counts[c] / 100)), np.random.default_rng(0)
    )
    assert Counter(drawn.stratum for drawn in sample.units) == {0: 8, 1: 2}
    assert sum(drawn.weight for drawn in sample.units if drawn.stratum == 1) == pytest.approx(0.5)
    assert sum(drawn.weight for drawn in sample.units) == pytest.approx(1)


def test_units_with_too_few_contexts_are_counted_and_empty_strata_named() -> None:
    made = firings([2] * 20 + [20] * 5)
    few = lambda _, c: contexts(c, float(made.counts[c] / 100)) if made.counts[c] == 2 else None  # noqa: E731
    sample = draw({"a": made}, 10, EDGES, few, np.random.default_rng(0))
    assert len(sample.units) == 10
    assert sample.too_few == 5
    assert sample.tried == 15
    assert sample.empty == (1,)
