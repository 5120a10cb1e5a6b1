"""A unit that says a word, held where it is silent."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from harness.metrics.concepts.tokens import Held
from harness.metrics.faithfulness.steering import Steered, alike, high, log_odds, spoken
from harness.metrics.joint.pairs import Fired
from harness.systems.clamping import clamped
from kernels.codes import Codes

from ..specialisation.test_knockout import evaluation


def test_a_concept_speaks_through_what_follows_it_more_than_anything_else() -> None:
    ids = np.tile([5, 7, 1, 2, 3, 4, 0, 6], 40)  # sequences of 8 from a vocabulary of 12

    def after(word: int) -> list[int]:
        held = Held(np.cumsum([0, *(ids == word)]), np.zeros(40, np.int32), 1, np.zeros(len(ids), int))
        return spoken(ids, held, 12, 8)[0].tolist()

    assert after(5)[0] == 7
    assert after(0)[0] == 6
    # Nothing follows the last token of a sequence, least of all what begins the next: no word stands out.
    assert after(6) == [0, 1, 2, 3, 4]


def test_a_unit_held_high_raises_the_odds_of_what_it_says_and_another_does_not() -> None:
    made = evaluation()
    site = made.system.sites[0]
    n = 8 * made.split.length
    other_domain = made.split.batch(torch.arange(8)).domain.reshape(-1).numpy() == 1
    said = np.array([0, 1])
    own = Steered(site, 0, 2.0, said, other_domain)
    at_the_end = np.arange(n) >= n - made.split.length
    rise = log_odds(
        made,
        [
            own,
            Steered(site, 2, 2.0, said, other_domain),
            Steered(site, 0, 2.0, said, np.zeros(n, bool)),
            Steered(site, 0, 2.0, said, at_the_end),
        ],
        8,
    )
    assert rise[0] > 1
    assert abs(rise[1]) < 0.05
    assert rise[2] == 0  # nowhere to look
    assert rise[3] > 1  # the last batch has its own tokens


def test_the_high_value_keeps_its_sign() -> None:
    assert high(np.array([-5.0, 1.0, 0.5] + [0.1] * 30 + [-4.0, -4.5])) == -4.0


@pytest.mark.parametrize("value", [2.5, -1.0, 0.0])
def test_a_held_unit_has_its_value_on_every_token_and_others_keep_theirs(value: float) -> None:
    dense = torch.randn(20, 6, generator=torch.Generator().manual_seed(0)) * (torch.rand(20, 6) < 0.5)
    found = clamped(3, value)(Codes.from_dense(dense, torch.zeros(20, 2, dtype=torch.long)))
    expected = dense.clone()
    expected[:, 3] = value
    assert torch.equal(found.dense(), expected)
    assert (found.values != 0).all()
    keys = found.token_of_entry() * 6 + found.units
    assert (keys.diff() > 0).all()  # sorted, each once


def test_the_other_half_of_a_unit_is_no_control() -> None:
    token = np.concatenate([np.arange(10), np.arange(10), np.arange(10, 20), np.arange(8, 18)])
    units = np.repeat([0, 1, 2, 3], 10)  # 0 and 1 fire together, 2 never with 0, 3 on two of ten tokens
    ones = np.ones(40, np.float32)
    assert alike(Fired(token, units, ones, ones, 20, 20, 5), 0).tolist() == [False, True, False, False, False]
