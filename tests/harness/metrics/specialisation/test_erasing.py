"""One concept taken away: told apart from the others, in the loss and by a probe."""

from __future__ import annotations

import numpy as np
import pytest

from harness.metrics.specialisation.erasing import _known, _lost  # pyright: ignore[reportPrivateUsage]

from .test_knockout import evaluation


def test_concepts_that_nobody_tells_count_as_nothing_lost() -> None:
    inside = np.array([[1, 1, 0, 0], [0, 0, 1, 0]], bool)
    rises = np.stack([np.stack([np.where(here, 3.0, 1.0), np.where(here, 0.5, 0.5)]) for here in inside])
    document = np.arange(4)
    two, four = (
        {one.name.split("_", 1)[1]: one.value for one in _lost(evaluation(), rises, inside, document, n)}
        for n in (2, 4)
    )
    assert two["own"] == pytest.approx(3)
    assert two["selectivity"] == pytest.approx(2)
    assert two["selectivity_above_random"] == pytest.approx(2)
    assert four["selectivity"] == pytest.approx(1)
    nobody = _lost(evaluation(), rises[:0], inside[:0], document, 4)
    assert all(one.value == 0 for one in nobody)


def test_a_probe_that_no_longer_tells_one_concept_and_tells_the_others() -> None:
    generator = np.random.default_rng(0)
    holds = generator.random((400, 3)) < 0.4
    natively = holds + 0.1 * generator.standard_normal(holds.shape)
    without = natively.copy()
    without[:, 1] = generator.standard_normal(400)  # concept 1 is gone
    found = {
        one.name.removeprefix("specialisation/"): one.value
        for one in _known(np.stack([natively, without, natively]), holds, [1])
    }
    assert found["erased_known_own"] == pytest.approx(0.5 / 3, abs=0.03)  # of three concepts one is told
    assert found["erased_known_others"] == pytest.approx(0, abs=1e-6)
    assert found["erased_known_random"] == 0
    assert found["erased_known_above_random"] == pytest.approx(0.5 / 3, abs=0.03)
