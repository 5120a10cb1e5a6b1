from __future__ import annotations

import numpy as np
import pytest

from harness.metrics.joint import information, null
from harness.metrics.joint.firing import Firing

PAIR = np.array([[0, 1]])


def parts(dense: np.ndarray, bins: int = 2) -> np.ndarray:
    firing = Firing.from_dense(dense)
    return information.split(information.tables(firing, PAIR, information.value_bins(firing, bins), bins)).parts[0]


def above_chance(dense: np.ndarray, document: np.ndarray | None = None, draws: int = 20) -> np.ndarray:
    firing, rng = Firing.from_dense(dense, document), np.random.default_rng(0)

    def of(firing: Firing) -> np.ndarray:
        return information.split(information.tables(firing, PAIR, information.value_bins(firing, 3), 3)).parts[0]

    chance = [of(null.curveball(firing, rng, within_documents=document is not None)) for _ in range(draws)]
    return of(firing) - np.mean(chance, axis=0)


def test_entropy_by_hand() -> None:
    assert information.entropy(np.array([[2, 2, 0], [4, 0, 0], [0, 0, 0], [1, 1, 2]])).tolist() == [1, 0, 0, 1.5]


def test_each_part_of_the_split_carries_what_was_planted_in_it() -> None:
    # Both fire together or not at all, half the time: one bit, all of it on/on; values do not vary.
    assert parts(np.array([[1.0, 1], [0, 0]] * 8)).tolist() == pytest.approx([1, 0, 0, 0])
    # A always fires; its value says whether B fires.
    assert parts(np.array([[1.0, 0], [2, 1]] * 8)).tolist() == pytest.approx([0, 0, 1, 0])
    assert parts(np.array([[0.0, 1], [1, 2]] * 8)).tolist() == pytest.approx([0, 1, 0, 0])
    # Both always fire; values agree.
    assert parts(np.array([[1.0, 1], [2, 2]] * 8)).tolist() == pytest.approx([0, 0, 0, 1])


def test_the_parts_add_up_to_the_whole_and_swapping_the_pair_swaps_the_middle_ones() -> None:
    rng = np.random.default_rng(1)
    common = rng.random(500)
    dense = np.stack([common, common + 0.3 * rng.random(500)], 1) * (rng.random((500, 2)) < 0.4 + 0.3 * common[:, None])
    firing = Firing.from_dense(dense)
    table = information.tables(firing, PAIR, information.value_bins(firing, 4), 4)
    p = table[0] / table[0].sum()
    expected = p.sum(0)[None, :] * p.sum(1)[:, None]
    whole = (p[p > 0] * np.log2(p[p > 0] / expected[p > 0])).sum()
    found = information.split(table)
    assert found.parts.sum() == pytest.approx(whole)
    assert (found.parts > 0).all()
    assert found.together[0] == ((dense > 0).all(1)).sum()
    swapped = information.split(table.transpose(0, 2, 1)).parts[0]
    assert swapped == pytest.approx(found.parts[0][[0, 2, 1, 3]])


def test_equal_values_share_a_bin_and_bins_are_of_equal_size() -> None:
    dense = np.array([[3.0, 5], [1, 5], [2, 5], [4, 5], [0, 5]])
    firing = Firing.from_dense(dense)
    bins = information.value_bins(firing, 2)
    assert bins[firing.column(0)].tolist() == [2, 1, 1, 2]
    assert set(bins[firing.column(1)].tolist()) == {1}


def test_total_correlation_by_hand() -> None:
    # Three units that fire together on half of the tokens: 3 bits apart, 1 together.
    dense = np.array([[1.0, 1, 1], [0, 0, 0]] * 4)
    bits, together = information.total_correlation(Firing.from_dense(dense), np.array([[0, 1, 2], [2, 0, 1]]))
    assert bits.tolist() == pytest.approx([2, 2])
    assert together.tolist() == [4, 4]
    # The third is the exclusive or of two independent ones: no pair knows it, all three do.
    dense = np.array([[0.0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]] * 4)
    groups = np.array([[0, 1], [0, 2], [1, 2]])
    assert information.total_correlation(Firing.from_dense(dense), groups)[0].tolist() == pytest.approx([0, 0, 0])
    assert information.total_correlation(Firing.from_dense(dense), np.array([[0, 1, 2]]))[0][0] == pytest.approx(1)
    with pytest.raises(ValueError, match="at most 16"):
        information.total_correlation(Firing.from_dense(dense), np.arange(17)[None])


def test_exactly_k_has_none_above_the_null_though_counted_information_is_there() -> None:
    rng = np.random.default_rng(2)
    dense = np.zeros((3000, 6))
    np.put_along_axis(dense, rng.random((3000, 6)).argsort(1)[:, :2], 1, axis=1)
    dense *= rng.uniform(1, 2, dense.shape)
    assert parts(dense)[0] > 0.02
    assert np.abs(above_chance(dense)).max() < 0.004


def test_a_topic_of_whole_documents_is_none_above_draws_that_keep_documents_and_a_common_cause_is() -> None:
    rng = np.random.default_rng(3)
    document = np.arange(4000) // 100
    topic = rng.random(40)[document] < 0.5
    rate = np.full((4000, 10), 0.3)
    rate[:, :2] = np.where(topic, 0.6, 0.1)[:, None]  # of all units, it would stand in the numbers of units on a token
    dense = (rng.random((4000, 10)) < rate) * rng.uniform(1, 2, (4000, 10))
    assert above_chance(dense)[0] > 0.02
    assert np.abs(above_chance(dense, document)).max() < 0.004
    cause = rng.random(4000)
    dense[:, :2] = (cause[:, None] > 0.7) * (cause[:, None] + 0.05 * rng.random((4000, 2)))
    found = above_chance(dense, document)
    assert found[0] > 0.3
    assert found[3] > 0.2
