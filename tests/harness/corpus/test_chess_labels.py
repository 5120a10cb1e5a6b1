import random

import chess
import numpy as np
import pytest

from harness.base.errors import HarnessError
from harness.corpus import Document, quiet
from harness.corpus.chess import ChessCorpus, movetext, random_game
from harness.corpus.chess_labels import CONCEPTS, PROPERTIES, ChessLabeller, position_labels, properties_of
from harness.corpus.packing import pack
from harness.corpus.tokenizer import own_reader, train_tokenizer

NAMES = [concept.name for concept in CONCEPTS]


def game(seed, plies=100):
    text, marks = movetext(*random_game(random.Random(seed), plies))
    return Document(f"chess:{seed}", "chess", text, str(seed), marks)


def document(text):
    """Of a movetext in the corpus's own form."""
    marks, at = [], 0
    for word in text.split(" "):
        if word[0].isalpha():
            marks.append(at)
        at += len(word) + 1
    return Document("chess:x", "chess", text, "x", tuple(marks))


def held(game, ends=None):
    ends = np.arange(1, len(game.text) + 1) if ends is None else np.array(ends)
    tokens, concepts = ChessLabeller().held(game, ends)
    found = [set() for _ in ends]
    for token, concept in zip(tokens, concepts, strict=True):
        assert NAMES[concept] not in found[token]
        found[token].add(NAMES[concept])
    return found


def where(text, name):
    return "".join(c if name in names else "." for c, names in zip(text, held(document(text)), strict=True))


def slow(board):
    """What holds on a board, square by square and move by move."""
    names = set()
    for square, piece in board.piece_map().items():
        colour = "white" if piece.color else "black"
        names.add(f"{colour} {chess.piece_name(piece.piece_type)} {chess.square_name(square)}")
    letters = board.board_fen()
    ahead = sum(
        {"p": 1, "n": 3, "b": 3, "r": 5, "q": 9}.get(c.lower(), 0) * (1 if c.isupper() else -1) for c in letters
    )
    moves = len(list(board.legal_moves))
    fen = board.fen(en_passant="fen").split()
    tests = {
        "white to move": fen[1] == "w",
        "black to move": fen[1] == "b",
        "check": board.is_attacked_by(not board.turn, board.king(board.turn)),
        "pin": any(
            board.is_pinned(board.turn, square) for square, p in board.piece_map().items() if p.color == board.turn
        ),
        "white may castle king's side": "K" in fen[2],
        "white may castle queen's side": "Q" in fen[2],
        "black may castle king's side": "k" in fen[2],
        "black may castle queen's side": "q" in fen[2],
        "en passant square": fen[3] != "-",
        "en passant is legal": any(board.is_en_passant(move) for move in board.legal_moves),
        "no queens": "q" not in letters.lower(),
        "under 10 legal moves": moves < 10,
        "10 to 19 legal moves": moves in range(10, 20),
        "20 to 29 legal moves": moves in range(20, 30),
        "30 or more legal moves": moves >= 30,
    }
    tests |= {f"white is ahead by {n}": ahead >= n for n in (1, 3)}
    tests |= {f"black is ahead by {n}": ahead <= -n for n in (1, 3)}
    return names | {name for name, holds in tests.items() if holds}


@pytest.mark.parametrize("seed", range(12))
def test_positions_of_random_games_are_those_of_a_slow_look_at_the_board(seed):
    each = game(seed, 150)
    board = chess.Board()
    sans = [each.text[mark:].split()[0] for mark in each.marks]
    for row, san in zip(position_labels(sans), [None, *sans], strict=True):
        if san:
            board.push_san(san)
        assert {NAMES[place] for place in np.flatnonzero(row)} == slow(board)


START_RIGHTS = {name for name in PROPERTIES if "may castle" in name}


@pytest.mark.parametrize(
    ("fen", "holds"),
    [
        (chess.STARTING_FEN, {"white to move", "20 to 29 legal moves"} | START_RIGHTS),
        # The knight on e2 stands between its king and a rook; the bishop on b4 gives check beside it.
        (
            "4r1k1/8/8/8/1b6/8/4N3/4K3 w - - 0 1",
            {
                "white to move",
                "check",
                "pin",
                "no queens",
                "black is ahead by 1",
                "black is ahead by 3",
                "under 10 legal moves",
            },
        ),
        # Two pieces between: no pin. A bishop on the king's file pins nothing. Queens are level.
        (
            "4r1k1/8/4P3/8/q7/4N3/4b3/Q3K3 w - - 0 1",
            {"white to move", "black is ahead by 1", "black is ahead by 3", "20 to 29 legal moves"},
        ),
        # The pawn on e5 may take on d6; black's a rook has moved.
        (
            "1n2k2r/8/8/3pP3/8/8/8/4K2R w Kk d6 0 9",
            {
                "white to move",
                "white may castle king's side",
                "black may castle king's side",
                "en passant square",
                "en passant is legal",
                "no queens",
                "black is ahead by 1",
                "black is ahead by 3",
                "10 to 19 legal moves",
            },
        ),
        # A double step that nobody can answer; black, a pawn behind, is pinned by a bishop.
        (
            "6k1/5r2/8/8/2B1P3/8/7P/3R2K1 b - e3 0 9",
            {
                "black to move",
                "pin",
                "en passant square",
                "no queens",
                "white is ahead by 1",
                "white is ahead by 3",
                "under 10 legal moves",
            },
        ),
    ],
)
def test_properties_of_positions_that_were_read_by_a_person(fen, holds):
    board = chess.Board(fen)
    assert {name for name, value in zip(PROPERTIES, properties_of(board), strict=True) if value} == holds


def test_castling_moves_two_pieces_and_takes_both_rights():
    before, after = (
        held(document(text))[-1] for text in ("1. e4 e5 2. Nf3 Nc6 3. Bc4 Bc5", "1. e4 e5 2. Nf3 Nc6 3. Bc4 Bc5 4. O-O")
    )
    assert before - after == {
        "white king e1",
        "white rook h1",
        "white may castle king's side",
        "white may castle queen's side",
        "white to move",
    }
    assert after - before == {"white king g1", "white rook f1", "black to move"}


def test_en_passant_takes_the_pawn_that_passed_and_promotion_makes_a_queen():
    found = held(document("1. e4 a6 2. e5 d5 3. exd6"))
    assert {"en passant square", "en passant is legal", "black pawn d5"} <= found[-6]  # "3. exd6" begins with "3"
    assert "white pawn d6" in found[-1]
    assert not {"en passant square", "black pawn d5", "white pawn e5"} & found[-1]
    found = held(document("1. h4 g5 2. hxg5 h6 3. gxh6 a6 4. h7 a5 5. hxg8=Q"))
    assert {"white pawn h7", "black knight g8"} <= found[-2]  # "=" does not say into what
    assert "white queen g8" in found[-1]
    assert not {"white pawn h7", "black knight g8"} & found[-1]


def test_a_half_move_is_named_with_the_last_character_before_its_check_sign():
    text = "1. e4 f5 2. Qh5+ g6 3. Qxg6+ hxg6 1/2-1/2"
    assert where(text, "white pawn e2") == "1. e" + "." * (len(text) - 4)
    assert where(text, "white queen h5") == "..............5+ g6 3. Qxg" + "." * 15
    assert where(text, "check") == "..............5+ g........6+ hxg" + "." * 9
    assert where(text, "black to move") == "....4 f.......5+ g........6+ hxg" + "." * 9
    assert where(text, "black pawn g6").endswith(".6 1/2-1/2")
    assert where("1. f3 e5 2. g4 Qh4# 0-1", "black queen h4") == "." * 17 + "4# 0-1"


@pytest.mark.parametrize("seed", range(3))
def test_what_is_named_is_known_no_san_begins_another_but_for_castling(seed):
    board = chess.Board()
    each = game(seed, 200)
    for mark in each.marks:
        stems = {board.san(move).rstrip("+#") for move in board.legal_moves}
        begun = {(a, b) for a in stems for b in stems if a != b and b.startswith(a)}
        assert begun <= {("O-O", "O-O-O")}
        board.push_san(each.text[mark:].split()[0])


def test_tokens_have_the_board_of_the_half_moves_that_were_read():
    games = [game(seed, 60) for seed in range(4)]
    tokenizer = train_tokenizer([each.text for each in games], 400)
    packed = pack(games, 0, ("chess",), own_reader(tokenizer), 1, quiet)
    owner, n_bytes = packed.columns["document"][:, 0], packed.columns["n_bytes"][:, 0].astype(int)
    for number, each in enumerate(games):
        ends = np.cumsum(n_bytes[owner == number])[1:]
        assert len(ends) < len(each.text) * 0.8  # tokens are longer than bytes
        found = held(each, ends)
        sans = [each.text[mark:].split()[0] for mark in each.marks]
        for end, names in zip(ends[::3], found[::3], strict=True):
            board = chess.Board()
            for mark, san in zip(each.marks, sans, strict=True):
                if each.text[:end].startswith(san.rstrip("+#"), mark):
                    board.push_san(san)
            assert names == slow(board)


def test_names_are_unique_and_a_chess_corpus_has_these_labels():
    assert len(set(NAMES)) == len(NAMES) == 12 * 64 + len(PROPERTIES)
    assert ChessCorpus().labeller(("chess",)).concepts == CONCEPTS
    assert "white king e1" in held(document("1. e4"), [5])[0]


def test_a_text_that_is_no_game_is_refused():
    with pytest.raises(HarnessError, match="not a game of chess: half-move 2, 'Ke2'"):
        held(document("1. e4 Ke2"))
