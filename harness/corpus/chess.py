"""Chess games as PGN movetext, with the board at every character as ground truth.

Generated games are seeded and independent of each other: game 17 of seed 0 is the same bytes whether or not game 16
was played. Random legal play, or stockfish where it is on the machine. Real games are read from PGN files.
"""

from __future__ import annotations

import atexit
import io
import random
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import ClassVar, Literal

import chess
import chess.engine
import chess.pgn
import numpy as np
from pydantic import Field

from harness.base.errors import BadInput, HarnessError
from harness.corpus import Document, Source, Sources, digest, in_hash_order
from harness.corpus.config import CorpusConfig, register
from harness.corpus.files import read_text
from harness.corpus.folder import contents_digest, files_of

Play = Literal["random", "stockfish"]
_RESULTS = ("1-0", "0-1", "1/2-1/2")
_ENGINE_NODES = 500
_RANDOM_PLIES = 6  # before the engine takes over, else every game is the same


class ChessCorpus(CorpusConfig):
    """PGN files where there is a path, generated games where there is none."""

    offers: ClassVar[tuple[str, ...] | None] = ("chess",)

    kind: Literal["chess"] = "chess"
    path: Path | None = Field(default=None, description="a PGN file or a folder of them")
    play: Play = Field(default="random", description="who plays the games that are generated")
    plies: int = Field(default=120, ge=20, le=1000, description="generated games stop after so many half-moves")

    def sources(self) -> dict[str, Sources]:
        if self.path is not None:
            return {"chess": _from_files(self.path, self)}
        return {"chess": GeneratedGames(self.play, self.plies, self.seed, self.max_document_bytes)}

    def packages(self) -> tuple[str, ...]:
        return ("chess",)

    def contents(self) -> str | None:
        return None if self.path is None else contents_digest(self.path)

    def where(self) -> Path | None:
        return self.path


@dataclass(frozen=True)
class GeneratedGames:
    """Endlessly many games of random legal moves, or of stockfish after `_RANDOM_PLIES` random ones.

    Stopped after `plies` half-moves: what follows in random play is kings walking about.
    """

    play: Play
    plies: int
    seed: int
    max_document_bytes: int

    def __post_init__(self) -> None:
        if self.play == "stockfish" and shutil.which("stockfish") is None:
            raise BadInput("play 'stockfish': there is no stockfish on PATH; install it or use 'random'")

    def __iter__(self) -> Iterator[Source]:
        number = 0
        while True:
            name = f"{self.play}-{self.seed}-{number}"
            yield Source(name, partial(self._game, name))
            number += 1

    def _game(self, name: str) -> list[Document]:
        chance = random.Random(digest("game", name))
        if self.play == "random":
            sans, result = random_game(chance, self.plies)
        else:
            sans, result = _stockfish_game(chance, self.plies)
        return [_document(name, sans, result, self.max_document_bytes)]


def random_game(chance: random.Random, plies: int) -> tuple[list[str], str]:
    """Half-moves in SAN, each uniform over the legal ones, and the result where the rules ended the game, else "".

    Draws by agreement, repetition and fifty moves are not claimed. python-chess's own `san` enumerates the legal
    moves again and plays each one twice; this asks for the legality of the drawn move only, which doubles the speed.
    """
    board, sans = chess.Board(), []
    while len(sans) < plies:
        moves = list(board.generate_pseudo_legal_moves())
        move = None
        while moves and move is None:  # rejecting illegal draws leaves the legal moves equally likely
            at = int(chance.random() * len(moves))  # of `random`, only this is promised to stay the same
            if board.is_legal(moves[at]):
                move = moves[at]
            else:
                moves.pop(at)
        if move is None:
            break
        san = _san_without_check(board, move, moves)
        board.push(move)
        if board.is_check():
            san += "+" if any(board.generate_legal_moves()) else "#"
        sans.append(san)
    return sans, _result(board)


def _san_without_check(board: chess.Board, move: chess.Move, moves: Sequence[chess.Move]) -> str:
    """SAN of a legal move, `moves` holding at least every legal one."""
    if board.is_castling(move):
        return "O-O" if chess.square_file(move.to_square) > chess.square_file(move.from_square) else "O-O-O"
    kind = board.piece_type_at(move.from_square)
    assert kind is not None
    target = chess.SQUARE_NAMES[move.to_square]
    takes = "x" if board.is_capture(move) else ""
    origin = chess.SQUARE_NAMES[move.from_square]
    if kind == chess.PAWN:
        promotion = f"={chess.piece_symbol(move.promotion).upper()}" if move.promotion else ""
        return f"{origin[0] if takes else ''}{takes}{target}{promotion}"
    rivals = [
        chess.SQUARE_NAMES[other.from_square]
        for other in moves
        if other.to_square == move.to_square
        and other.from_square != move.from_square
        and board.piece_type_at(other.from_square) == kind
        and board.is_legal(other)
    ]
    if not rivals:
        which = ""
    elif all(rival[0] != origin[0] for rival in rivals):
        which = origin[0]
    elif all(rival[1] != origin[1] for rival in rivals):
        which = origin[1]
    else:
        which = origin
    return f"{chess.piece_symbol(kind).upper()}{which}{takes}{target}"


def _stockfish_game(chance: random.Random, plies: int) -> tuple[list[str], str]:
    opening, _ = random_game(chance, min(_RANDOM_PLIES, plies))
    board, sans = chess.Board(), []
    for san in opening:
        board.push_san(san)
    sans += opening
    engine, game = _engine(), object()
    while len(sans) < plies and not board.is_game_over():
        move = engine.play(board, chess.engine.Limit(nodes=_ENGINE_NODES), game=game).move
        if move is None:
            break
        sans.append(board.san(move))
        board.push(move)
    return sans, _result(board)


def _result(board: chess.Board) -> str:
    """The result where the rules ended the game, else ""."""
    result = board.result()
    return result if result in _RESULTS else ""


@cache
def _engine() -> chess.engine.SimpleEngine:
    """One engine a process, one thread, so that a game depends on nothing but its opening."""
    engine = chess.engine.SimpleEngine.popen_uci(shutil.which("stockfish") or "stockfish")
    engine.configure({name: value for name, value in {"Threads": 1, "Hash": 16}.items() if name in engine.options})
    atexit.register(engine.close)
    return engine


def _from_files(path: Path, config: ChessCorpus) -> Sources:
    """Every game of every PGN file, each a source of its own."""
    found = []
    for name, file in files_of(path, (".pgn",)).items():
        # A game begins at its first tag; a file without tags is one source.
        text = read_text(file)
        starts = [match.start() for match in re.finditer(r"^\[Event ", text, re.MULTILINE)] or [0]
        for number, (start, end) in enumerate(zip(starts, [*starts[1:], len(text)], strict=True)):
            game = f"{name}/{number}"
            found.append(Source(game, partial(_parsed, text[start:end], game, config)))
    if not found:
        raise BadInput(f"the corpus is empty: no .pgn file in {path}")
    return in_hash_order(found, config.seed)


def _parsed(pgn: str, name: str, config: ChessCorpus) -> list[Document]:
    """Main lines only: no tags, comments, variations or clocks. A game without moves is no document."""
    stream, documents = io.StringIO(pgn), []
    while (game := chess.pgn.read_game(stream)) is not None:
        if game.errors:
            raise BadInput(f"{config.path}, game {name}: {game.errors[0]}")
        board, sans = game.board(), []
        if board.fen() != chess.STARTING_FEN:
            raise BadInput(f"{config.path}, game {name}: starts from another position than the usual one")
        for move in game.mainline_moves():
            sans.append(board.san(move))
            board.push(move)
        if sans:
            result = game.headers.get("Result", "*")
            part = f"{name}.{len(documents)}" if documents else name
            documents.append(_document(part, sans, result if result in _RESULTS else "", config.max_document_bytes))
    return [Document(each.id, each.domain, each.text, name, each.marks) for each in documents]


def _document(name: str, sans: Sequence[str], result: str, max_bytes: int) -> Document:
    """A game is never cut at its beginning, which would hide the board; a long one ends early, without a result."""
    text, marks = movetext(sans, result)
    if len(text) > max_bytes:
        kept = [mark for mark, san in zip(marks, sans, strict=True) if mark + len(san) <= max_bytes]
        text, marks = movetext(sans[: len(kept)])
    return Document(id=f"chess:{name}", domain="chess", text=text, source=name, marks=marks)


def movetext(sans: Sequence[str], result: str = "") -> tuple[str, tuple[int, ...]]:
    """`1. e4 e5 2. Nf3 … 1-0` on one line, and the offset at which each SAN starts. ASCII: characters are bytes."""
    parts, marks, at = [], [], 0
    for ply, san in enumerate(sans):
        if ply % 2 == 0:
            number = f"{ply // 2 + 1}. "
            parts.append(number)
            at += len(number)
        marks.append(at)
        parts.append(f"{san} ")
        at += len(san) + 1
    return ("".join(parts) + result).rstrip(), tuple(marks)


def sans_of(text: str) -> list[str]:
    """The SANs of a movetext: everything but move numbers and the result."""
    return [word for word in text.split() if not word.endswith(".") and word not in _RESULTS]


def board_at(text: str, ply: int) -> chess.Board:
    """The board after the first `ply` half-moves. Raises HarnessError where the text has fewer or an illegal one."""
    sans = sans_of(text)
    if not 0 <= ply <= len(sans):
        raise HarnessError(f"ply {ply} of a game of {len(sans)} half-moves: 0 to {len(sans)} exist")
    return _replayed(sans[:ply])[-1]


def boards(text: str) -> np.ndarray:
    """Every board of a game. `[plies + 1, 64]` int8, board `i` after `i` half-moves, so row 0 is the starting position.

    Squares a1, b1, … h8; 0 empty, 1–6 white pawn, knight, bishop, rook, queen, king, 7–12 the same in black.
    A token of ply p (`PackedSplit.ply`) is read while the board is row p and, once its SAN is complete, row p + 1.
    """
    bitboards = np.array([_bitboards(board) for board in _replayed(sans_of(text))], dtype="<u8")  # [boards, 12]
    bits = np.unpackbits(bitboards.view(np.uint8), axis=-1, bitorder="little")
    squares = bits.reshape(len(bitboards), 12, 64)
    return (squares * np.arange(1, 13, dtype=np.uint8)[None, :, None]).sum(axis=1).astype(np.int8)


def _bitboards(board: chess.Board) -> list[int]:
    kinds = (board.pawns, board.knights, board.bishops, board.rooks, board.queens, board.kings)
    return [kind & board.occupied_co[colour] for colour in (chess.WHITE, chess.BLACK) for kind in kinds]


def _replayed(sans: Sequence[str]) -> list[chess.Board]:
    """The board before the first half-move and after each. The copies carry no history."""
    board = chess.Board()
    found = [board.copy(stack=False)]
    for ply, san in enumerate(sans):
        try:
            board.push_san(san)
        except ValueError as error:
            raise HarnessError(f"not a game of chess: half-move {ply + 1}, {san!r}: {error}") from None
        found.append(board.copy(stack=False))
    return found


register("chess", ChessCorpus)
