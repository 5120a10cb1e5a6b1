"""Activity in steps: nothing lost, equal values together, the strongest first."""

import numpy as np
import pytest

from harness.metrics.concepts.levels import FIRST, LEVELS, levels

from .conftest import activity_of


@pytest.mark.parametrize("digits", [0, 6])
def test_every_entry_has_the_level_of_its_value(digits: int):
    generator = np.random.default_rng(0)
    values = np.round(generator.normal(size=(500, 6)) * 2, digits)
    values[:, 5] = 0
    activity = activity_of(values)
    found = levels(activity)
    dense = np.full((500, 12), -1)
    token = np.repeat(np.arange(500), np.diff(found.indptr))
    dense[token, found.detectors] = found.level
    for detector in range(12):
        signed = values[:, detector // 2] * (1 - 2 * (detector % 2))
        assert np.array_equal(dense[:, detector] >= 0, signed > 0)
        for at in range(LEVELS):
            here = dense[:, detector] == at
            assert here.sum() == found.tokens[detector, at]
            if here.any():
                assert found.cuts[detector, at] == pytest.approx(signed[here].min())
                assert (signed[dense[:, detector] > at] < signed[here].min()).all()
    assert np.isinf(found.cuts[10:]).all()


def test_steps_are_small_where_few_are_strong():
    values = np.random.default_rng(0).random((20_000, 1))
    sizes = levels(activity_of(values)).tokens[0]
    assert sizes[0] == FIRST
    assert (sizes > 0).all()
    assert sizes[-1] > 1000
    assert sizes.sum() == 20_000
