"""Curves on losses that are written down, and on a model whose unit is needed."""

from __future__ import annotations

import numpy as np
import pytest

from harness.metrics.faithfulness.curves import AGAINST, SHARES, WAYS, Curves

RUNS = (*((way, share) for way in WAYS for share in SHARES), *(("against", share) for share in AGAINST), ("none", 0.0))


def curves(best: dict[float, float], none: float = 1.0, random: float = 0.5, active: float = 10.0) -> dict[str, float]:
    """Losses in bits per byte; every document has one byte."""
    losses = [best[share] if way == "best" else none if way == "none" else random for way, share in RUNS]
    nats = np.tile(np.array(losses) * np.log(2), (12, 1))
    made = Curves(RUNS, nats, np.ones(12), active, 50).measurements()
    return {one.name.removeprefix("faithfulness/"): one.value for one in made}


def test_the_units_that_are_needed_lie_between_two_shares() -> None:
    best = dict.fromkeys(SHARES, 0.0) | {0.1: 0.05, 0.05: 0.15}
    found = curves(best)
    assert found["best_10"] == pytest.approx(0.05)
    assert found["none"] == pytest.approx(1)
    assert found["units_90"] == pytest.approx(10 * 0.1 * 0.5**0.5)  # half way in logarithms
    assert found["order_area"] == pytest.approx(0.5 - (0.05 + 0.15) / len(SHARES))


def test_where_a_tenth_of_the_units_is_missed_nearly_all_are_needed() -> None:
    assert 9 < curves(dict.fromkeys(SHARES, 0.9))["units_90"] < 10


def test_where_units_do_nothing_nobody_can_say_how_many_are_needed() -> None:
    assert np.isnan(curves(dict.fromkeys(SHARES, 0.0), none=0.0)["units_90"])
