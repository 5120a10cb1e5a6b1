"""Dense-equivalent compute: the fit, what a system is given for its loss, and where it is extrapolated."""

from __future__ import annotations

import numpy as np
import pytest

from harness.tables.build import SeedResult
from harness.tables.measurement import Measurement
from harness.tables.scaling import FLOPS, LOSS, NAME, RATIO, fit, needed, on_envelope, with_dense_equivalent
from harness.tables.table import RowProvenance

CURVE = ["small", "middle", "large"]
WHY_NOT = "the dense curve has no three rows whose loss falls with compute"


def result(name: str, flops: float, loss: float, seed: int = 0, noise: float | None = None) -> SeedResult:
    generator = np.random.default_rng(1)  # resample b draws the same documents in every system
    replicates = None if noise is None else loss * (1 + noise * generator.standard_normal(50))
    measured = [
        Measurement(FLOPS, flops, "FLOP", "lower", 1),
        Measurement(LOSS, loss, "bit/byte", "lower", 1, replicates, "documents"),
    ]
    return SeedResult(name, "subject", seed, measured, RowProvenance())


def curve(a: float = 40.0, b: float = 0.1, seed: int = 0, noise: float | None = None) -> list[SeedResult]:
    points = zip(CURVE, (1e11, 1e12, 1e13), strict=True)
    return [result(name, flops, a * flops**-b, seed, noise) for name, flops in points]


def figures(of: SeedResult) -> dict[str, float]:
    return {m.name: m.value for m in of.measurements}


def test_the_fit_finds_the_power_law_that_made_the_points() -> None:
    flops = np.array([1e11, 1e12, 1e13])
    log_a, b = fit(flops, 40.0 * flops**-0.1)
    assert (float(np.exp(log_a)), float(b)) == pytest.approx((40.0, 0.1))
    assert float(needed(np.array(40.0 * 3e12**-0.1), log_a, b)) == pytest.approx(3e12)


def test_a_system_gets_the_flops_that_dense_needs_for_its_loss() -> None:
    system = result("peer", 1e12, 40.0 * 3e12**-0.1)
    found = with_dense_equivalent([*curve(), system], CURVE)[-1]
    assert figures(found)[NAME] == pytest.approx(3e12)
    assert figures(found)[RATIO] == pytest.approx(3.0)
    assert found.notes == []


def test_outside_the_curve_the_row_says_extrapolated() -> None:
    better = with_dense_equivalent([*curve(), result("peer", 1e12, 40.0 * 1e15**-0.1)], CURVE)[-1]
    assert figures(better)[NAME] == pytest.approx(1e15)
    assert better.notes[0].startswith("dense-equivalent compute extrapolated: 1.265 bits per byte, curve 2.005 to ")


def test_each_seed_has_its_own_fit_and_intervals_come_from_paired_resamples() -> None:
    seeds = [*curve(noise=0.02), *curve(a=50.0, seed=1), result("peer", 1e12, 2.5, seed=0, noise=0.02)]
    seeds.append(result("peer", 1e12, 2.5, seed=1))
    found = [r for r in with_dense_equivalent(seeds, CURVE) if r.system == "peer"]
    assert figures(found[0])[NAME] == pytest.approx((40 / 2.5) ** 10)
    assert figures(found[1])[NAME] == pytest.approx((50 / 2.5) ** 10)
    measured = next(m for m in found[0].measurements if m.name == NAME)
    # The noise is that of the documents, the same in curve and system: it cancels.
    assert np.allclose(np.asarray(measured.replicates), measured.value)
    assert next(m for m in found[1].measurements if m.name == NAME).replicates is None


def test_a_curve_that_does_not_fall_gives_no_figure_and_says_why() -> None:
    flat = [result(name, flops, 3.0) for name, flops in zip(CURVE, (1e11, 1e12, 1e13), strict=True)]
    found = with_dense_equivalent([*flat, result("peer", 1e12, 2.5)], CURVE)[-1]
    assert NAME not in figures(found)
    assert found.not_applicable[NAME] == WHY_NOT


def test_rows_without_training_or_loss_and_tables_without_a_curve_stay_as_they_are() -> None:
    untrained = result("dense[untrained=true]", 0.0, 8.0)
    assert with_dense_equivalent([*curve(), untrained], CURVE)[-1] == untrained
    assert with_dense_equivalent([*curve(), untrained], []) == [*curve(), untrained]


def test_one_seed_whose_curve_does_not_fall_takes_the_figure_from_all_seeds_and_is_named() -> None:
    flat = [result(name, flops, 3.0, seed=1) for name, flops in zip(CURVE, (1e11, 1e12, 1e13), strict=True)]
    rows = [*curve(), *flat, result("peer", 1e12, 2.5), result("peer", 1e12, 2.5, seed=1)]
    found = [row for row in with_dense_equivalent(rows, CURVE) if row.system == "peer"]
    assert len(found) == 2
    for row in found:
        assert NAME not in figures(row)
        assert row.not_applicable[RATIO] == f"{WHY_NOT} with seed 1"


def test_a_shape_that_a_cheaper_or_better_one_beats_is_not_on_the_curve() -> None:
    flops, losses = np.array([1e11, 1e12, 1e12, 2e12, 1e13]), np.array([4.0, 3.0, 3.5, 3.2, 2.0])
    assert on_envelope(flops, losses).tolist() == [True, True, False, False, True]


def test_a_bad_dense_shape_changes_no_figure() -> None:
    system = result("peer", 1e12, 40.0 * 3e12**-0.1, noise=0.02)
    straw_man = result("bad", 2e12, 40.0 * 2e12**-0.1 + 0.2, noise=0.02)
    without = with_dense_equivalent([*curve(noise=0.02), system], CURVE)[-1]
    with_ = with_dense_equivalent([*curve(noise=0.02), straw_man, system], [*CURVE, "bad"])[-1]
    assert figures(with_) == figures(without)


def test_what_a_part_of_the_units_is_worth_is_the_share_of_compute_that_its_loss_takes() -> None:
    system = result("peer", 1e12, 40.0 * 1e12**-0.1)
    worse = 40.0 * 1e11**-0.1 - 40.0 * 1e12**-0.1  # what a tenth of the compute loses
    system.measurements.append(Measurement("loss/bits_per_byte", 40.0 * 1e12**-0.1, "bit/byte", "lower", 1))
    system.measurements.append(Measurement("faithfulness/random_50", worse, "bit/byte", "lower", 1))
    found = figures(with_dense_equivalent([*curve(), system], CURVE)[-1])
    assert found["faithfulness/random_50_compute"] == pytest.approx(0.1)
    assert "faithfulness/best_25_compute" not in found
