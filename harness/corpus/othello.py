"""Othello on 6 × 6, played at random: a world whose hidden state (the board) small models learn.

A game is one word, a character a half-move: `A` to `Z` and `0` to `9` are the 36 squares row by row (`A` is a1, `B` is
b1), `-` is a pass, which is written because it is forced and so that the sides take turns. With the default vocabulary
of 257 a token is a half-move. Games are put together by end of text, which follows when neither side can move.

Every legal move is equally likely, so the exact distribution of each token is known (`legal_after`), and with it the
least loss that there is: the mean logarithm of the number of legal moves. Who sees a game from its middle, as in a
packed sequence that a game crosses, cannot reach it: with sequences of 128 that is one token in eight, and they count
neither in the floor nor in what is lost above it (`floor.py`).

What holds of the splits: games are independent; a game is left out if one before it was the same to the end, so no
whole game of eval is in train. Beginnings are shared, as they must be: 4 first moves are one and the same by symmetry.
With 16,000 games in train, one eval game in 12 has its first 8 half-moves from some game of train, one in 400 its first
10, and none of 3,000 its first 12.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from harness.base.errors import HarnessError
from harness.corpus import Document, Source, Sources, digest
from harness.corpus.config import CorpusConfig, register
from harness.corpus.othello_rules import Rules

RULES = Rules(6)
SQUARES = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
PASS = "-"
_PLACE = {character: place for place, character in enumerate(SQUARES)}
_PLACES = np.arange(len(SQUARES), dtype=np.uint64)
_CODES = np.frombuffer(SQUARES.encode(), dtype=np.uint8)
_BLOCK = 512  # games played together, for speed; each has chance of its own
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class OthelloCorpus(CorpusConfig):
    """Random games of Othello on 6 × 6, a token a half-move."""

    offers: ClassVar[tuple[str, ...] | None] = ("othello6",)

    kind: Literal["othello6"] = "othello6"
    vocab_size: int = Field(default=257, ge=257, description="257: a token a half-move; more: merges of half-moves")

    def sources(self) -> dict[str, Sources]:
        return {"othello6": RandomGames(self.seed)}

    def log_probabilities(self, text: str) -> list[float] | None:
        """−ln of how many moves are legal; 0 for a pass, which is forced."""
        legal = np.bitwise_count(replay(text).legal[:-1]).astype(np.float64)
        return (-np.log(np.maximum(legal, 1))).tolist()


@dataclass(frozen=True)
class RandomGames:
    """Endlessly many. Game 17 of seed 0 is the same whether or not game 16 was played."""

    seed: int

    def __iter__(self) -> Iterator[Source]:
        number = 0
        while True:
            yield Source(f"othello6-{self.seed}-{number}", partial(self._game, number))
            number += 1

    def _game(self, number: int) -> list[Document]:
        name = f"othello6-{self.seed}-{number}"
        text = _block(self.seed, number // _BLOCK)[number % _BLOCK]
        return [Document(id=f"othello6:{name}", domain="othello6", text=text, source=name)]


@lru_cache(maxsize=4)
def _block(seed: int, block: int) -> list[str]:
    numbers = range(block * _BLOCK, (block + 1) * _BLOCK)
    return random_games([digest("othello6", seed, number) for number in numbers])


def random_games(seeds: Sequence[int]) -> list[str]:
    """A game for each seed (64 bits), from which alone its moves follow."""
    chance = np.array(seeds, dtype=np.uint64)
    mine, theirs = (np.full(len(chance), side, dtype=np.uint64) for side in RULES.start)
    written = []
    while True:
        legal = RULES.legal(mine, theirs)
        passes = legal == 0
        playing = ~passes
        playing[passes] = RULES.legal(theirs[passes], mine[passes]) != 0
        if not playing.any():
            break
        place = _drawn(legal, _uniform(chance, len(written)))
        written.append(np.where(playing, np.where(passes, ord(PASS), _CODES[place]), 0).astype(np.uint8))
        move = np.where(passes, 0, np.uint64(1) << place.astype(np.uint64))
        turned = RULES.turned(mine, theirs, move)
        mine, theirs = theirs & ~turned, mine | turned | move
    lengths = (np.array(written) != 0).sum(axis=0)
    games = np.ascontiguousarray(np.array(written).T)
    return [game[:length].tobytes().decode() for game, length in zip(games, lengths, strict=True)]


def _drawn(sets: NDArray[np.uint64], uniform: NDArray[np.float64]) -> NDArray[np.int64]:
    """One member of each set, each equally likely; any square of an empty one."""
    members = ((sets[:, None] >> _PLACES) & np.uint64(1)).astype(np.int8)
    rank = np.cumsum(members, axis=1)
    wanted = 1 + (uniform * rank[:, -1]).astype(np.int8)
    return np.argmax(rank == wanted[:, None], axis=1)


def _uniform(seeds: NDArray[np.uint64], number: int) -> NDArray[np.float64]:
    """The `number`-th draw of each seed, in [0, 1): SplitMix64, which needs no state but the count."""
    bits = seeds + np.array([number + 1], dtype=np.uint64) * _GOLDEN  # an array, since a number warns when it wraps
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    bits = bits ^ (bits >> np.uint64(31))
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


@dataclass(frozen=True)
class Replay:
    """Every position of a game, as the side to move sees it: before the first half-move, and after each. All
    `[half-moves + 1]`, sets of squares. turned: by the half-move that led there."""

    mine: NDArray[np.uint64]
    theirs: NDArray[np.uint64]
    turned: NDArray[np.uint64]
    legal: NDArray[np.uint64]
    must_pass: NDArray[np.bool_]  # the side to move has no move and the other has one


def replay(text: str) -> Replay:
    """Raises HarnessError, naming the half-move, where the text breaks the rules."""
    mine, theirs = RULES.start
    positions = [(mine, theirs, 0)]
    for ply, character in enumerate(text):
        turned = move = 0
        if character != PASS:
            place = _PLACE.get(character, -1)
            move = 1 << place if place >= 0 else mine
            turned = 0 if move & (mine | theirs) else RULES.turned_by(mine, theirs, place)
            if not turned:
                raise HarnessError(f"not a game of Othello: half-move {ply + 1}, {character!r}, is not legal")
        mine, theirs = theirs ^ turned, mine | turned | move
        positions.append((mine, theirs, turned))
    sides = np.array(positions, dtype=np.uint64).T
    legal = RULES.legal(sides[0], sides[1])
    must_pass = np.zeros(len(positions), dtype=bool)
    for ply in np.flatnonzero(legal == 0).tolist():
        mine, theirs, _ = positions[ply]
        must_pass[ply] = RULES.legal(theirs, mine) != 0
    passed = np.array([character == PASS for character in text], dtype=bool)
    wrong = np.flatnonzero(passed & ~must_pass[:-1])
    if len(wrong):
        raise HarnessError(f"not a game of Othello: half-move {wrong[0] + 1} is a pass that nothing forces")
    return Replay(sides[0], sides[1], sides[2], legal, must_pass)


def squares(sets: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Sets of squares as rows. `[n]` → `[n, 36]`"""
    return (sets[:, None] >> _PLACES) & np.uint64(1) != 0


def legal_after(text: str) -> NDArray[np.bool_]:
    """Which half-moves may follow each beginning of a game, all equally likely. `[half-moves + 1, 37]`, columns as
    `SQUARES` and the pass; a row of nothing: the game is over."""
    game = replay(text)
    return np.concatenate([squares(game.legal), game.must_pass[:, None]], axis=1)


register("othello6", OthelloCorpus)
