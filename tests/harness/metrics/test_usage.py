import math
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.metrics import usage
from harness.metrics.usage import alive, silent_share, unevenness, zipf_fit
from harness.systems.system import System

from ..conftest import subject
from .test_kept import evaluation


def test_unevenness_is_0_for_equal_units_and_log_n_for_a_single_one() -> None:
    assert unevenness(np.full(8, 3.0)) == pytest.approx(0, abs=1e-12)
    assert unevenness(np.array([0.0, 5.0, 0.0, 0.0])) == pytest.approx(math.log(4))
    # log 3 + ¾ log ¾ + ¼ log ¼, by hand
    assert unevenness(np.array([3.0, 1.0, 0.0])) == pytest.approx(0.5362768, abs=1e-6)


def test_unevenness_does_not_depend_on_scale_or_order() -> None:
    mass = np.random.default_rng(0).random(30)
    assert unevenness(7 * mass[::-1]) == pytest.approx(unevenness(mass))


def test_the_zipf_fit_recovers_a_planted_exponent() -> None:
    for exponent in (0.5, 1.0, 1.7):
        density = 0.3 * np.arange(1, 200.0) ** -exponent
        found, fit = zipf_fit(np.random.default_rng(0).permutation(density))
        assert found == pytest.approx(exponent)
        assert fit == pytest.approx(1)


def test_the_zipf_fit_leaves_dead_units_out_and_says_nan_when_too_few_fire() -> None:
    assert zipf_fit(np.array([0.5, 0.25, 0.125, 0, 0]))[0] == pytest.approx(zipf_fit(np.array([0.5, 0.25, 0.125]))[0])
    assert math.isnan(zipf_fit(np.array([0.5, 0.1, 0.0]))[0])


def test_the_share_that_stays_silent_in_fewer_firings_by_hand() -> None:
    # Firings a a b; two are drawn: {a a} misses b once in three draws, b is in the others, a is in all. c never fires.
    assert silent_share(np.array([2.0, 1.0, 0.0]), 2) == pytest.approx((0 + 1 / 3 + 1) / 3)
    assert silent_share(np.array([2.0, 1.0, 0.0]), 3) == pytest.approx(1 / 3)  # all of them: what was seen
    assert math.isnan(silent_share(np.array([2.0, 1.0, 0.0]), 4))


def test_a_wide_pool_and_a_narrow_one_of_the_same_use_look_equally_dead_at_equal_slots() -> None:
    """Half of the units never fire, the others alike; the wide pool has had a sixteenth of the firings a unit."""
    rng = np.random.default_rng(0)

    def counts(n: int, slots: int) -> np.ndarray:
        return rng.multinomial(slots * n, np.repeat([2 / n, 0.0], n // 2)).astype(float)

    narrow, wide = counts(200, 32), counts(20_000, 2)
    assert (wide == 0).mean() > (narrow == 0).mean() + 0.005  # one count flatters the narrow one
    assert silent_share(narrow, 2 * 200) == pytest.approx(silent_share(wide, 2 * 20_000), abs=0.003)
    for found in (narrow, wide):
        assert alive(found) / len(found) == pytest.approx(0.5, abs=0.005)


def test_chaos_estimate_by_hand() -> None:
    assert alive(np.array([0.0, 0, 0, 0, 1, 1, 1, 2, 5, 9])) == pytest.approx(6 + 3 * 2 / (2 * 2))
    assert alive(np.array([0.0, 1, 1, 1])) == 4  # at most all
    assert alive(np.zeros(5)) == 0


def test_the_figures_are_over_all_units_of_all_sites_at_so_many_firings_of_each(tmp_path: Path) -> None:
    system = System("pools", subject("pools"), None)
    made = evaluation(system)
    made.artifacts = tmp_path
    counts = [torch.bincount(made.load_codes(site).codes.units, minlength=36).double().numpy() for site in system.sites]
    by_name = {m.name: m for m in usage.measure(made, usage.Options(slots=2))}
    expected = np.mean([silent_share(of_site, 2 * 36) for of_site in counts])
    assert by_name["usage/dead_at_slots"].value == pytest.approx(expected)
    assert by_name["usage/dead_chao1"].value == pytest.approx(1 - sum(map(alive, counts)) / 72)
    assert by_name["usage/dead"].value == pytest.approx(np.mean(np.concatenate(counts) == 0))
    little = {m.name: m for m in usage.measure(made, usage.Options(slots=10**6))}["usage/dead_at_slots"]
    assert math.isnan(little.value)
    assert "fewer than 1000000: more text" in str(little.reason)
