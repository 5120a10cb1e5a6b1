"""Who holds each square while a game is being written."""

from __future__ import annotations

import numpy as np

from harness.corpus import Document
from harness.metrics.joint.board import holders
from harness.metrics.joint.sampling import Positions

GAME = Document("game", "chess", "1. e4 d5 2. exd5 Qxd5", "game", (3, 6, 12, 17))
E2, E4, D5, D7, D8 = 12, 28, 35, 51, 59


def text(ply: list[int], document: list[int]) -> Positions:
    zeros = np.zeros(len(ply), np.int64)
    return Positions(zeros, zeros, np.array(document), zeros, np.array(ply))


def test_squares_are_held_by_the_side_to_move_or_the_other() -> None:
    held = holders(text([0, 1, 2, 3], [5] * 4), lambda number: {5: GAME}[number])
    assert held.shape == (4, 64)
    assert held[:, E2].tolist() == [1, 0, 0, 0]  # white's, until it has moved
    assert held[:, E4].tolist() == [0, 2, 1, 0]
    assert held[:, D7].tolist() == [2, 1, 0, 0]
    assert held[:, D5].tolist() == [0, 0, 2, 2]  # black's pawn seen by white; then white's seen by black
    assert held[:, D8].tolist() == [2, 1, 2, 1]
    assert ((held == 1).sum(1) == [16, 16, 16, 15]).all()  # black lost a pawn to the third half-move


def test_tokens_outside_of_games_are_not_asked() -> None:
    held = holders(text([-1, 0, -1], [3, 5, 3]), lambda number: {5: GAME}[number])
    assert held[[0, 2]].sum() == 0
    assert held[1].sum() == 16 + 2 * 16
