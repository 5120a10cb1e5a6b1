"""Merged units fire where any of theirs does, and their scores give the scale on which random directions are read."""

from __future__ import annotations

import numpy as np
import pytest

from harness.metrics.autointerp.collect import WantedContexts
from harness.metrics.autointerp.firings import Firings
from harness.metrics.autointerp.merged import MOST, as_merged, merged
from harness.metrics.autointerp.sampling import Drawn


def test_a_merged_unit_fires_where_any_of_its_units_does_and_reads_worse(
    world, planted, wanted: WantedContexts
) -> None:
    names = ("the", "money", "closing", "coin")
    tokens = [np.flatnonzero(world.fires(name)) for name in names]
    starts = np.concatenate([[0], np.cumsum([len(one) for one in tokens])])
    joined = np.concatenate(tokens)
    firings = Firings("mlp_out.0", 4, world.ids.size, np.arange(4), starts, joined, np.ones(len(joined), np.float32))
    drawn = Drawn(planted("the"), firings, 0, 0, 1.0, 1.0)
    (whole,) = merged([drawn], 4, world.text(1, 1), wanted, lambda _firings, _column: [], seed=0)
    assert whole is not None
    anywhere = np.unique(joined)
    assert whole.density == pytest.approx(len(anywhere) / world.ids.size)
    (pair,) = merged([drawn], 2, world.text(1, 1), wanted, lambda _firings, _column: [], seed=0)
    assert pair is not None
    assert drawn.contexts.density < pair.density < whole.density


def test_a_unit_without_partners_is_not_merged(world, planted, wanted: WantedContexts) -> None:
    tokens = np.flatnonzero(world.fires("the"))
    firings = Firings(
        "s", 1, world.ids.size, np.zeros(1, int), np.array([0, len(tokens)]), tokens, np.ones(len(tokens))
    )
    drawn = Drawn(planted("the"), firings, 0, 0, 1.0, 1.0)
    assert merged([drawn], 2, world.text(), wanted, lambda _f, _c: [], seed=0) == [None]


def test_the_scale_by_hand() -> None:
    # 0.9, 0.8, 0.7 at 1, 2, 4 units: 0.1 for every doubling.
    curve = np.array([0.8, 0.7])
    assert as_merged(np.array(0.9), curve, np.array(0.8)) == pytest.approx(2)
    assert as_merged(np.array(0.9), curve, np.array(0.65)) == pytest.approx(4 * 2**0.5)
    assert as_merged(np.array(0.9), curve, np.array(0.95)) == 1  # reads better than one unit does
    assert as_merged(np.array(0.9), np.array([0.9, 0.95]), np.array(0.5)) == MOST  # merging costs nothing: no scale
