import random
import shutil
import sys
from itertools import islice

import chess
import numpy as np
import pytest

from harness.base.errors import BadInput, HarnessError
from harness.corpus import quiet
from harness.corpus.chess import ChessCorpus, board_at, boards, movetext, random_game, sans_of
from harness.corpus.select import select

GAME = """[Event "A"]
[Site "?"]
[Result "1-0"]

1. e4 {best by test} e5 2. Bc4 (2. Nf3 Nc6) Nc6 3. Qh5 $1 Nf6?? 4. Qxf7# 1-0
"""
MATE = "1. e4 e5 2. Bc4 Nc6 3. Qh5 Nf6 4. Qxf7# 1-0"


def games(config, count):
    return [document for source in islice(config.sources()["chess"], count) for document in source.read()]


@pytest.mark.parametrize("seed", range(14))  # 13 ends in mate
def test_sans_of_random_games_are_those_of_python_chess(seed):
    sans, result = random_game(random.Random(seed), 400)
    board = chess.Board()
    for san in sans:
        move = board.parse_san(san)
        assert board.san(move) == san
        board.push(move)
    assert result in ("", board.result())
    assert sans[-1].endswith("#") == board.is_checkmate() == (seed == 13)
    assert len(sans) == 400 or board.is_game_over()


def test_disambiguation_by_file_rank_and_square():
    from harness.corpus.chess import _san_without_check

    # Three queens that reach e1, rooks on one file, a pinned knight that is no rival, castling, promotion, en passant.
    for fen in (
        "k7/8/8/8/4Q2Q/8/8/K6Q w - - 0 1",
        "k7/8/8/R7/8/8/8/R3K3 w - - 0 1",
        "k3r3/8/8/8/4N3/8/8/2N1K3 w - - 0 1",
        "k7/8/8/8/8/8/8/R3K2R w KQ - 0 1",
        "3r4/2P5/8/8/8/8/8/k3K3 w - - 0 1",
        "k7/8/8/3pP3/8/8/8/K7 w - d6 0 2",
    ):
        board = chess.Board(fen)
        moves = list(board.generate_pseudo_legal_moves())
        for move in board.legal_moves:
            assert _san_without_check(board, move, moves) == board.san(move).rstrip("+#")


def test_every_legal_first_move_is_equally_likely():
    chance = random.Random(0)
    first = [random_game(chance, 1)[0][0] for _ in range(4000)]
    counts = np.array([first.count(move) for move in set(first)])
    assert len(counts) == 20
    assert ((counts - 200) ** 2 / 200).sum() < 43.8  # chi squared, 19 degrees of freedom, p = 0.001


def test_games_are_the_same_bytes_and_do_not_depend_on_each_other():
    config = ChessCorpus(plies=20)
    twice = [games(config, 6), games(config, 6)]
    assert twice[0] == twice[1]
    alone = list(islice(config.sources()["chess"], 6))[5].read()
    assert alone == [twice[0][5]]
    other = games(ChessCorpus(plies=20, seed=1), 6)
    assert not {game.text for game in other} & {game.text for game in twice[0]}


def test_marks_are_where_each_san_starts():
    for game in games(ChessCorpus(plies=60), 5):
        sans = sans_of(game.text)
        assert len(sans) == len(game.marks) == 60
        assert all(game.text.startswith(san, mark) for san, mark in zip(sans, game.marks, strict=True))


def test_movetext_reads_as_pgn():
    text, marks = movetext(["e4", "e5", "Nf3"], "1/2-1/2")
    assert text == "1. e4 e5 2. Nf3 1/2-1/2"
    assert marks == (3, 6, 12)
    assert sans_of(text) == ["e4", "e5", "Nf3"]


def test_boards_are_those_of_a_replay():
    game = games(ChessCorpus(plies=80), 1)[0]
    found = boards(game.text)
    assert found.shape == (81, 64)
    assert found.dtype == np.int8
    board = chess.Board()
    for ply, san in enumerate([None, *sans_of(game.text)]):
        if san:
            board.push_san(san)
        wanted = np.zeros(64, dtype=np.int8)
        for square, piece in board.piece_map().items():
            wanted[square] = piece.piece_type + (0 if piece.color else 6)
        np.testing.assert_array_equal(found[ply], wanted)
        assert board_at(game.text, ply).board_fen() == board.board_fen()


def test_boards_of_no_game_are_refused():
    with pytest.raises(HarnessError, match="half-move 2, 'Ke2'"):
        boards("1. e4 Ke2")
    with pytest.raises(HarnessError, match="ply 9 of a game of 7 half-moves"):
        board_at(MATE, 9)


def test_pgn_files_are_read_without_tags_comments_and_variations(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.pgn").write_text(GAME + "\n" + GAME.replace("e4 {best by test} e5", "e4 e6"))
    (tmp_path / "b.pgn").write_text("1. d4 d5 *\n")
    sources = ChessCorpus(path=tmp_path).sources()["chess"]
    found = {document.id: document for source in sources for document in source.read()}
    assert found["chess:sub/a.pgn/0"].text == MATE
    assert found["chess:sub/a.pgn/1"].text.startswith("1. e4 e6")
    assert found["chess:b.pgn/0"].text == "1. d4 d5"
    assert found["chess:sub/a.pgn/0"].source != found["chess:sub/a.pgn/1"].source


def test_a_long_game_ends_early_at_a_half_move(tmp_path):
    (tmp_path / "a.pgn").write_text(
        "1. Nf3 Nf6 2. Ng1 Ng8 " * 1 + " ".join(f"{n}. Nf3 Nf6 {n}. Ng1 Ng8" for n in range(9))
    )
    source = next(iter(ChessCorpus(path=tmp_path, max_document_bytes=64).sources()["chess"]))
    (game,) = source.read()
    assert 55 < len(game.text) <= 64
    assert len(boards(game.text)) == len(game.marks) + 1


@pytest.mark.parametrize(
    ("pgn", "message"),
    [
        ("1. e4 e5 2. Ke3 *", "game a.pgn/0: illegal san"),
        (
            '[Event "x"]\n[FEN "4k3/8/8/8/8/8/8/4K2R w K - 0 1"]\n[SetUp "1"]\n\n1. O-O *',
            "starts from another position",
        ),
    ],
)
def test_a_game_that_cannot_be_used_is_named(tmp_path, pgn, message):
    (tmp_path / "a.pgn").write_text(pgn)
    with pytest.raises(BadInput, match=message):
        select(ChessCorpus(path=tmp_path), ChessCorpus(path=tmp_path).sources(), quiet)


def test_a_folder_without_pgn_files_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("1. e4")
    with pytest.raises(BadInput, match=r"no \.pgn file in"):
        ChessCorpus(path=tmp_path).sources()


_ENGINE = """#!{python}
import sys, chess
board = chess.Board()
for line in sys.stdin:
    words = line.split()
    if words[0] == "uci": print("id name fake\\nuciok", flush=True)
    elif words[0] == "isready": print("readyok", flush=True)
    elif words[0] == "position":
        board = chess.Board()
        if "fen" in words: board = chess.Board(" ".join(words[2:8]))
        for move in words[words.index("moves") + 1:] if "moves" in words else []: board.push_uci(move)
    elif words[0] == "go": print("bestmove", min(move.uci() for move in board.legal_moves), flush=True)
    elif words[0] == "quit": break
"""


def test_stockfish_plays_where_there_is_one(tmp_path, monkeypatch):
    from harness.corpus.chess import _engine

    config = ChessCorpus(play="stockfish", plies=30)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(BadInput, match="no stockfish on PATH"):
        config.sources()
    engine = tmp_path / "stockfish"  # any UCI engine: this one plays the alphabetically first move
    engine.write_text(_ENGINE.format(python=sys.executable))
    engine.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda name: str(engine))
    _engine.cache_clear()
    try:
        found = games(config, 2)
    finally:
        _engine().close()
        _engine.cache_clear()
    for game in found:
        sans = sans_of(game.text)
        board = board_at(game.text, 6)
        assert 6 < len(sans) <= 30  # the rules may end a game early
        for san in sans[6:]:
            assert board.parse_san(san).uci() == min(move.uci() for move in board.legal_moves)
            board.push_san(san)
    assert found[0].text != found[1].text
