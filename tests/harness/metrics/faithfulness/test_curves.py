"""Curves on losses that are written down."""

from __future__ import annotations

import numpy as np
import pytest

from harness.metrics.faithfulness.curves import COUNTS, RUNS, SHARES, Curves


def curves(count: dict[int, float], none: float = 1.0, scale: float = 1.0) -> dict[str, float]:
    """Losses in bits per byte; every document has one byte. Random 0.5, best 0.2, worst 0.9, against 2."""
    of = {"random": 0.5, "best": 0.2, "worst": 0.9, "against": 2.0, "none": none}
    losses = [count[int(size)] if way == "count" else of[way] for way, size in RUNS]
    nats = np.tile(scale * np.array(losses) * np.log(2), (12, 1))
    made = Curves(nats, np.ones(12), 50).measurements()
    return {one.name.removeprefix("faithfulness/"): one.value for one in made}


def test_the_units_that_are_needed_lie_between_two_counts() -> None:
    found = curves(dict.fromkeys(COUNTS, 0.0) | {1: 0.4, 2: 0.15, 4: 0.05})
    assert found["count_2"] == pytest.approx(0.15)
    assert found["none"] == pytest.approx(1)
    assert found["units_90"] == pytest.approx(2 * 2**0.5)  # half way in logarithms


def test_losses_are_shares_of_what_is_lost_without_units() -> None:
    """A dictionary that does a hundredth of what another does, and loses its parts alike, reads the same."""
    large, small = (curves(dict.fromkeys(COUNTS, 0.3), scale=scale) for scale in (1.0, 0.01))
    assert large["sufficiency"] == pytest.approx(0.3)
    assert large["necessity"] == pytest.approx(0.4)
    assert large["random_50_lost"] == pytest.approx(0.5)
    assert large["against_75_lost"] == pytest.approx(2)
    for name in ("sufficiency", "necessity", "units_90", "random_50_lost"):
        assert small[name] == pytest.approx(large[name])
    assert small["random_50"] == pytest.approx(0.005)


def test_one_unit_is_the_least_that_is_read_and_the_largest_count_the_most() -> None:
    assert curves(dict.fromkeys(COUNTS, 0.05))["units_90"] == 1
    assert curves(dict.fromkeys(COUNTS, 0.9))["units_90"] == COUNTS[-1]


def test_where_units_do_nothing_nobody_can_say_how_many_are_needed() -> None:
    found = curves(dict.fromkeys(COUNTS, 0.0), none=0.0)
    assert np.isnan([found[name] for name in ("units_90", "sufficiency", "necessity")]).all()
    assert len(SHARES) == 6
