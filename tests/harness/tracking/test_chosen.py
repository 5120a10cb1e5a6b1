"""Which figures MLflow gets as metrics: few, rounded, the headline first, and what is no number said in words."""

from __future__ import annotations

import math

import pytest

from harness.tables.measurement import Measurement
from harness.tracking import chosen


def measured(*names: str, value: float = 1.23456789) -> list[Measurement]:
    return [Measurement(name, value, "", "none", 1) for name in names]


def test_the_headline_comes_first_and_all_else_only_if_it_is_asked_for_often() -> None:
    found = chosen.final(measured("joint/odd", "loss/perplexity", "loss/bits_per_byte"), ["joint/odd"])
    assert list(found) == ["joint/odd", "loss/bits_per_byte"]
    assert found["joint/odd"] == 1.23457


def test_no_row_has_more_metrics_than_a_page_holds() -> None:
    headline = [f"joint/figure_{n}" for n in range(60)]
    final = chosen.final(measured(*headline, *chosen.ASKED), headline)
    for sites in (1, 2, 5, 12, 40):
        curves = chosen.curve_keys([f"mlp_out.{n}" for n in range(sites)])
        assert 0 < sum(map(len, curves.values())) <= chosen.OF_CURVES
        assert len(final) + sum(map(len, curves.values())) <= chosen.MOST


def test_units_are_given_in_powers_of_ten_too() -> None:
    assert chosen.final(measured("sparsity/l0", value=100.0), [])[chosen.LOG_UNITS] == 2.0
    assert chosen.LOG_UNITS not in chosen.final(measured("sparsity/l0", value=0.0), [])


def test_a_figure_that_is_no_number_is_left_out_and_said_why() -> None:
    broken = [
        Measurement("loss/splice_cost", math.nan, "", "none", 1, reason="by construction"),
        Measurement("usage/dead", math.inf, "", "none", 1),
        Measurement("joint/failed", math.nan, "", "none", 1, reason="ValueError: no pairs"),
        Measurement("loss/recovered", math.nan, "", "none", 1, reason="nobody asks"),
    ]
    assert chosen.final(broken, []) == {}
    assert chosen.not_numbers(broken, []) == (
        "loss/splice_cost: by construction\nusage/dead: inf\njoint/failed: ValueError: no pairs"
    )
    assert chosen.not_numbers(measured("usage/dead"), []) is None


@pytest.mark.parametrize("systems", [3, 100])
def test_a_comparison_has_the_headline_of_every_system_figure_by_figure(given, tmp_path, systems: int) -> None:
    results = [given.result(f"dense[d_ff={n}]", 0) for n in range(systems)]
    found = chosen.of_every_system(given.finished_folder(tmp_path, results))
    assert len(found) <= 40
    assert list(found)[: min(3, systems)] == [f"headline/spliced_bits_per_byte/dense.d_ff.{n}." for n in range(3)]
    assert set(found.values()) <= {2.0, 1.9, 100.0}
