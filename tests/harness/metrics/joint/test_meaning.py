"""What a unit says alone, and how much of it is left where its partner fires too."""

from __future__ import annotations

import numpy as np
import torch

from harness.metrics.joint.meaning import core, kept, lost, moved


def test_the_core_is_what_rises_nearly_as_much_as_the_most() -> None:
    rise = torch.tensor([[0.4, 0.31, 0.29, -0.5], [0.0, 0.0, 0.0, 0.0], [-0.1, -0.2, -0.3, -0.4]])
    assert core(rise).tolist() == [[True, True, False, False], [False] * 4, [False] * 4]


def test_moves_are_read_against_the_median_outcome_by_hand_and_shifts_change_nothing() -> None:
    off = torch.zeros(1, 5)
    on = torch.tensor([[3.0, 1.0, 0.5, 0.5, -2.0]])
    of = torch.tensor([[True, True, False, False, False]])
    assert float(moved(on, off, of)) == (3.0 + 1.0) / 2 - 0.5
    assert float(moved(on + 7, off - 2, of)) == (3.0 + 1.0) / 2 - 0.5
    # The partner's own say, on another outcome, takes nothing away, though probabilities fall.
    louder = on + torch.tensor([[0.0, 0.0, 0.0, 0.0, 9.0]])
    assert float(moved(louder, off, of)) == (3.0 + 1.0) / 2 - 1.0


def test_what_is_kept_is_the_mean_over_the_two_units_of_their_share() -> None:
    together = np.array([[[2.0, 1.0], [0.0, 0.0]]])  # one pair, two contexts
    shares = kept(together, np.array([[4.0, 1.0]]))
    np.testing.assert_allclose(shares, [[0.75, 0.0]])
    assert np.isnan(kept(together, np.array([[4.0, 0.0]]))).all()


def test_a_meaning_that_is_gone_is_lost_and_one_that_is_there_is_not() -> None:
    rng = np.random.default_rng(0)
    shares = np.stack([rng.normal(mean, 0.2, 30) for mean in (0.0, 0.5, 1.0)])
    p = lost(shares)
    assert p[0] < 1e-6
    assert 0.01 < p[1] < 0.99
    assert p[2] > 0.999
