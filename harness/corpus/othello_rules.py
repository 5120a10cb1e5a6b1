"""Othello on a board of any even size up to 8 × 8: which moves are legal and what they turn over.

A set of squares is an integer, square (row, column) being bit `row * size + column`. The same lines work on one board,
with Python's integers, and on many at once, with arrays of uint64. A position is seen by the side to move: `mine` and
`theirs`.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Bits = TypeVar("Bits", int, NDArray[np.uint64])


class Rules:
    """`full`: all squares. `start`: the four in the middle, black's and white's; black is to move."""

    def __init__(self, size: int) -> None:
        assert size in (4, 6, 8)
        self.size = size
        self.full = 2 ** (size * size) - 1
        middle = size // 2
        black = self.square(middle - 1, middle) | self.square(middle, middle - 1)
        white = self.square(middle - 1, middle - 1) | self.square(middle, middle)
        self.start = black, white
        self._rays = [self._rays_from(row, column) for row in range(size) for column in range(size)]
        self._steps = [(a * size + b, self._reached(b)) for a in (-1, 0, 1) for b in (-1, 0, 1) if a or b]

    def square(self, row: int, column: int) -> int:
        return 1 << (row * self.size + column)

    def name(self, place: int) -> str:
        """Of bit `place`: a1 is the first, b1 the second."""
        return f"{'abcdefgh'[place % self.size]}{place // self.size + 1}"

    def legal(self, mine: Bits, theirs: Bits) -> Bits:
        """Empty squares from which a line of theirs leads to one of mine."""
        empty = self.full ^ (mine | theirs)
        found: Any = mine & 0
        for step in self._steps:
            run = self._line(mine, theirs, step)
            found = found | (_stepped(run, step) & empty)
        return found

    def turned(self, mine: Bits, theirs: Bits, move: Bits) -> Bits:
        """What a move turns over: lines of theirs between it and one of mine. Nothing where it is not legal, if it is
        on an empty square."""
        found: Any = mine & 0
        for step in self._steps:
            run = self._line(move, theirs, step)
            found = found | (run * ((_stepped(run, step) & mine) != 0))
        return found

    def turned_by(self, mine: int, theirs: int, place: int) -> int:
        """`turned` of a move on bit `place`, for one board: walks from the square, and most walks end at once."""
        found = 0
        for ray in self._rays[place]:
            run = 0
            for square in ray:
                if theirs & square:
                    run |= square
                    continue
                if mine & square:
                    found |= run
                break
        return found

    def _rays_from(self, row: int, column: int) -> list[list[int]]:
        """The squares that lie in each direction, nearest first."""
        found = []
        for a, b in ((a, b) for a in (-1, 0, 1) for b in (-1, 0, 1) if a or b):
            reach = min(self._room(row, a), self._room(column, b))
            found.append([self.square(row + a * n, column + b * n) for n in range(1, reach + 1)])
        return found

    def _room(self, at: int, step: int) -> int:
        return {-1: at, 0: self.size, 1: self.size - 1 - at}[step]

    def _line(self, start: Bits, theirs: Bits, step: tuple[int, int]) -> Any:
        """Their pieces that lie in a row from any square of `start`."""
        run = _stepped(start, step) & theirs
        for _ in range(self.size - 3):  # at most all but both ends of a line
            run = run | (_stepped(run, step) & theirs)
        return run

    def _reached(self, columns: int) -> int:
        """Squares that a step over so many columns can reach: none from beyond the edge."""
        reached = [column for column in range(self.size) if 0 <= column - columns < self.size]
        return sum(self.square(row, column) for row in range(self.size) for column in reached)


def _stepped(bits: Any, step: tuple[int, int]) -> Any:
    """Any is `Bits`: numpy's types say that a shifted uint64 has a sign."""
    shift, reached = step
    return ((bits << shift) if shift > 0 else (bits >> -shift)) & reached
