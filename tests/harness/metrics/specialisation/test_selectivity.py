"""Own and elsewhere are means over the same domains."""

from __future__ import annotations

import numpy as np
import pytest

from harness.metrics.specialisation import _selectivity  # pyright: ignore[reportPrivateUsage]

from .test_knockout import evaluation


def test_a_domain_that_the_text_lacks_counts_on_neither_side() -> None:
    """Domain 2 has no targets; taking its units away costs 9 everywhere else, domain 0's cost 2 there and 1 elsewhere,
    domain 1's 4 there and 1 elsewhere."""
    of = np.array([0, 0, 1, 1])
    inside = np.stack([of == domain for domain in range(3)])
    own = np.where(inside, np.array([[2.0], [4.0], [0.0]]), np.array([[1.0], [1.0], [9.0]]))
    rises = np.stack([own, np.zeros_like(own)], 1)
    found = {one.name.split("_", 1)[1]: one for one in _selectivity(evaluation(), "knockout", rises, inside, of)}
    assert found["own"].value == pytest.approx(3)
    assert found["elsewhere"].value == pytest.approx(1)
    assert found["selectivity"].value == pytest.approx(2)
