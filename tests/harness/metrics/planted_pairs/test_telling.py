"""Shares, precision, recall and order, worked out by hand."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from harness.metrics.planted_pairs.choosing import UNPLANTED
from harness.metrics.planted_pairs.edited import Edited
from harness.metrics.planted_pairs.telling import Telling
from harness.tables.measurement import Measurement

# Four conjunctions of which two combine and one more without strangers, four additive pairs of which one does.
RELATION = np.array(["conjunction"] * 5 + ["additive"] * 4)
FIGURE = np.array([100.0, 100, 1, 1, 7, 100, 1, 1, 1])
NEAR = np.array([True] * 4 + [False] + [True] * 4)


def measured(least_pairs: int = 4, relation: np.ndarray = RELATION) -> dict[str, Measurement]:
    n = len(FIGURE)
    strangers = np.tile([0.8, 1.0, 1.25], (n, 1))
    ones = np.ones(n)
    edited = Edited(
        {"excess": FIGURE, "conjunction": ones},
        {"excess": strangers, "conjunction": strangers},
        effect=2 * ones,
        effect_b=ones,
        effects=np.ones((n, 3)),
        floor=0.5 * ones,
        near=NEAR,
    )
    planted = Counter({"conjunction": 8, "additive": 5})
    found = Telling(edited, relation, planted, "the others have no units", least_pairs, 200).measurements()
    return {one.name.removeprefix("planted_pairs/"): one for one in found}


def test_figures_are_what_they_are_by_hand() -> None:
    found = {name: one.value for name, one in measured().items()}
    assert found["tested_of_conjunctions"] == 5
    assert found["with_strangers_of_conjunctions"] == 4
    assert found["excess_bits_of_conjunctions"] == pytest.approx(209 / 5)
    assert found["effect_bits_of_additive"] == 2
    assert found["floor_bits_of_additive"] == 0.5
    assert found["excess_over_strangers_of_conjunctions"] == pytest.approx(10)  # two of a hundred, two of one
    assert found["excess_flagged_of_conjunctions"] == 0.5
    assert found["excess_flagged_of_additive"] == 0.25
    assert found["excess_precision"] == pytest.approx(2 / 3)
    assert found["excess_precision_chance"] == 0.5
    assert found["excess_recall"] == 2 / 8  # of all planted, also those that were not tested
    assert found["excess_auroc"] == pytest.approx(10 / 16)  # 100 against 100, 1, 1, 1: 3.5 each; 1 likewise: 1.5 each
    assert found["excess_auroc_share"] == pytest.approx((10 + 3) / 20)  # the one without strangers is above three
    assert found["conjunction_auroc"] == 0.5


def test_intervals_lie_around_the_figures_and_need_pairs() -> None:
    found = measured()
    for name in ("excess_precision", "excess_recall", "excess_auroc", "excess_flagged_of_additive"):
        one = found[name]
        assert one.replicates is not None
        low, high = np.nanquantile(one.replicates, [0.05, 0.95])
        assert low < one.value < high, name
        assert one.resampled == "units"
    assert "no planted pair is flagged" in str(found["conjunction_precision"].reason)
    for name in ("excess_auroc", "excess_precision", "excess_flagged_of_conjunctions"):
        one = measured(least_pairs=5)[name]
        assert math.isnan(one.value)
        assert "4 of 8 conjunctions" in str(one.reason)
        assert "the others have no units" in str(one.reason)
    assert measured(least_pairs=5)["excess_bits_of_conjunctions"].value == pytest.approx(209 / 5)  # needs no strangers


def test_unplanted_pairs_are_in_no_precision_and_have_an_order_of_their_own() -> None:
    other = np.where(RELATION == "additive", UNPLANTED, RELATION)
    found = measured(relation=other)
    assert found["excess_auroc_unplanted"].value == pytest.approx(10 / 16)
    assert found["excess_flagged_of_unplanted"].value == 0.25
    assert math.isnan(found["excess_precision"].value)
