"""What the tokens of a chess game mean: which piece stands on which square, and properties of the position.

The concepts of arXiv 2408.00113 and MoE-X (arXiv 2503.07639): piece on square (12 × 64), and properties that a player
sees. Those papers score them where a move number ends; here every token has them.

Which board a token has: the one after every half-move that the text has named when the token ends. A half-move is named
with the last character of its SAN before `+` or `#`, so `e4` counts from the `4` on and ` Qh5+` from the `5` on. Then
the label is what decides what follows, the check sign too, and it is known: no SAN without its check sign begins
another one that is legal on the same board. The one exception is castling: where both sides are possible, `O-O` is told
from `O-O-O` one character ahead. What follows a named half-move (sign, space, move number) has the board after it, and
so has the result.

The side to move is the one whose turn it is on that board: black as soon as white's half-move is named.
"""

from __future__ import annotations

from collections.abc import Iterator

import chess
import numpy as np
from numpy.typing import NDArray

from harness.base.errors import HarnessError
from harness.corpus import Document
from harness.corpus.config import CorpusConfig, register_labeller
from harness.corpus.labels import Concept, Integers

PIECES = [f"{colour} {chess.piece_name(kind)}" for colour in ("white", "black") for kind in chess.PIECE_TYPES]
PROPERTIES = (
    "white to move",
    "black to move",
    "check",
    "pin",  # of a piece of the side to move, against its king
    "white may castle king's side",  # the right: what stands between or attacks may forbid it now
    "white may castle queen's side",
    "black may castle king's side",
    "black may castle queen's side",
    "en passant square",  # the last half-move was a pawn's double step, whether or not a pawn can take it
    "en passant is legal",
    "white is ahead by 1",  # or more, in pawns: knight and bishop 3, rook 5, queen 9
    "white is ahead by 3",
    "black is ahead by 1",
    "black is ahead by 3",
    "no queens",
    "under 10 legal moves",
    "10 to 19 legal moves",
    "20 to 29 legal moves",
    "30 or more legal moves",
)
CONCEPTS = (
    *(Concept(f"{piece} {square}", "square") for piece in PIECES for square in chess.SQUARE_NAMES),
    *(Concept(name, "property") for name in PROPERTIES),
)
_WORTH = {chess.PAWN: 1, chess.KNIGHT: 3, chess.BISHOP: 3, chess.ROOK: 5, chess.QUEEN: 9}


class ChessLabeller:
    """A game is replayed once; its positions are looked at once each, however many tokens have them."""

    concepts = CONCEPTS
    from_beginning = True  # a move says little of the board that it was played on

    def held(self, document: Document, ends: Integers) -> tuple[Integers, Integers]:
        sans = [document.text[mark:].split(maxsplit=1)[0] for mark in document.marks]
        named = [mark + len(san.rstrip("+#")) for mark, san in zip(document.marks, sans, strict=True)]
        state = np.searchsorted(named, ends, side="right")  # half-moves that are named when the token ends
        token, concept = np.nonzero(position_labels(sans)[state])
        return token, concept


def position_labels(sans: list[str]) -> NDArray[np.bool_]:
    """What holds before the first half-move and after each. `[half-moves + 1, concepts]`. Raises HarnessError where it
    is no game."""
    bitboards, properties = [], []
    for board in _positions(sans):
        sides = [board.occupied_co[colour] for colour in (chess.WHITE, chess.BLACK)]
        kinds = (board.pawns, board.knights, board.bishops, board.rooks, board.queens, board.kings)
        bitboards.append([kind & side for side in sides for kind in kinds])
        properties.append(properties_of(board))
    squares = np.unpackbits(np.array(bitboards, dtype="<u8").view(np.uint8), axis=-1, bitorder="little")
    return np.concatenate([squares.astype(bool), np.array(properties, dtype=bool)], axis=1)


def _positions(sans: list[str]) -> Iterator[chess.Board]:
    """One board, which moves on."""
    board = chess.Board()
    yield board
    for ply, san in enumerate(sans):
        try:
            board.push_san(san)
        except ValueError as error:
            raise HarnessError(f"not a game of chess: half-move {ply + 1}, {san!r}: {error}") from None
        yield board


def properties_of(board: chess.Board) -> list[bool]:
    """In the order of `PROPERTIES`."""
    ahead = sum(
        worth * (len(board.pieces(kind, chess.WHITE)) - len(board.pieces(kind, chess.BLACK)))
        for kind, worth in _WORTH.items()
    )
    legal = board.legal_moves.count()
    return [
        board.turn == chess.WHITE,
        board.turn == chess.BLACK,
        board.is_check(),
        _pin(board),
        board.has_kingside_castling_rights(chess.WHITE),
        board.has_queenside_castling_rights(chess.WHITE),
        board.has_kingside_castling_rights(chess.BLACK),
        board.has_queenside_castling_rights(chess.BLACK),
        board.ep_square is not None,
        board.has_legal_en_passant(),
        ahead >= 1,
        ahead >= 3,
        ahead <= -1,
        ahead <= -3,
        not board.queens,
        legal < 10,
        10 <= legal < 20,
        20 <= legal < 30,
        legal >= 30,
    ]


def _pin(board: chess.Board) -> bool:
    """Whether a piece of the side to move may not leave the line between its king and a piece of the other side."""
    king = board.king(board.turn)
    assert king is not None  # a game begins with one and nobody takes it
    theirs, ours = board.occupied_co[not board.turn], board.occupied_co[board.turn]
    for slider in chess.SquareSet(theirs & (board.queens | board.rooks | board.bishops)):
        straight = chess.square_file(king) == chess.square_file(slider) or (
            chess.square_rank(king) == chess.square_rank(slider)
        )
        of_its_kind = board.queens | (board.rooks if straight else board.bishops)
        if not of_its_kind & chess.BB_SQUARES[slider]:
            continue
        between = chess.between(king, slider) & board.occupied  # nothing where they share no line
        if between and not between & (between - 1) and between & ours:
            return True
    return False


def chess_labeller(config: CorpusConfig, domains: tuple[str, ...]) -> ChessLabeller:
    return ChessLabeller()


register_labeller("chess", chess_labeller)
