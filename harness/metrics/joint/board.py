"""What a game's tokens could be read for: who holds each square of the board before the half-move being written."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from harness.metrics.joint.sampling import Positions

if TYPE_CHECKING:
    from harness.corpus import Document

SQUARES, HOLDERS = 64, 3


def holders(text: Positions, document: Callable[[int], Document]) -> np.ndarray:
    """`[tokens, 64]` int64, squares a1, b1, … h8: 0 empty, 1 the side that is to move, 2 the other; 0 outside of games.

    By side to move and not by colour: that is how a model of Othello was found to keep it (Nanda et al. 2023, arXiv
    2309.00941). document: by its number.
    """
    from harness.corpus.chess import boards

    found = np.zeros((len(text.ids), SQUARES), np.int64)
    for number in np.unique(text.document[text.ply >= 0]):
        here = np.flatnonzero((text.document == number) & (text.ply >= 0))
        ply = text.ply[here]
        pieces = boards(document(int(number)).text)[ply]  # 0 empty, 1 to 6 white, 7 to 12 black
        black = pieces > 6
        moves = (ply % 2 == 1)[:, None]  # black's half-moves are the odd ones
        found[here] = np.where(pieces == 0, 0, np.where(black == moves, 1, 2))
    return found
