import math

import numpy as np
import pytest

from harness.metrics.usage import unevenness, zipf_fit


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
