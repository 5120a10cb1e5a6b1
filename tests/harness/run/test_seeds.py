import numpy as np
import pytest
from scipy import stats

from harness.run.seeds import seed_lines, seeds_needed
from harness.tables.build import SeedResult, build
from harness.tables.measurement import Measurement
from harness.tables.table import RowProvenance

from ..tables.test_table import provenance


@pytest.mark.parametrize(("spread", "difference"), [(0.01, 0.02), (0.02, 0.02), (0.05, 0.02)])
def test_so_many_seeds_resolve_a_difference_four_times_in_five_and_one_fewer_do_not(spread, difference):
    n = seeds_needed(spread, difference)
    assert n is not None

    def resolved(seeds: int) -> float:
        draws = np.random.default_rng(0).normal(difference, spread, size=(4000, seeds))
        return float((stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05).mean())

    assert resolved(n) > 0.78
    if n > 2:
        assert resolved(n - 1) < 0.86


def test_seeds_that_agree_need_two_and_those_that_never_do_are_said():
    assert seeds_needed(0.0, 0.01) == 2
    assert seeds_needed(1.0, 0.001) is None


def test_a_table_with_several_seeds_says_what_its_rows_need_and_others_say_nothing():
    def row(system: str, values: list[float], kind="subject") -> list[SeedResult]:
        measured = [[Measurement("loss/x", value, "", "lower", 1)] for value in values]
        return [SeedResult(system, kind, seed, m, RowProvenance()) for seed, m in enumerate(measured)]

    results = [*row("dense", [2.0, 2.1, 1.9]), *row("peer", [1.9, 2.02, 1.79]), *row("once", [1.8])]
    table = build("x", results, provenance(), None)
    (line,) = seed_lines(table, "dense", ["loss/x", "loss/y"], 0.02)
    assert line.startswith("loss/x, peer minus dense: varies by 0.0153 over 3 seeds; 7 seeds resolve 0.02")
    assert list(seed_lines(table, "nobody", ["loss/x"], 0.02)) == []
