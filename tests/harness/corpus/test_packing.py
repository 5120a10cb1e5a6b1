import random

import chess
import numpy as np
import pytest

from harness.corpus import Document, quiet
from harness.corpus.chess import boards, movetext, random_game, sans_of
from harness.corpus.packing import COLUMNS, _plies, pack
from harness.corpus.tokenizer import own_reader, train_tokenizer


def game(seed):
    text, marks = movetext(*random_game(random.Random(seed), 60))
    return Document(f"chess:{seed}", "chess", text, str(seed), marks)


DOCUMENTS = [
    Document("prose:0", "prose", "Some prose — with <|endoftext|> inside, and naïve 🎉 characters.", "0"),
    *(game(seed) for seed in range(8)),
    Document("prose:1", "prose", "The end.", "1"),
]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([document.text for document in DOCUMENTS], 330)


@pytest.fixture(scope="module")
def packed(tokenizer):
    return pack(DOCUMENTS, 100, ("prose", "chess"), own_reader(tokenizer), 1, quiet)  # length 1: nothing is left over


def test_columns_have_their_types_and_shape(tokenizer):
    packed = pack(DOCUMENTS, 0, ("prose", "chess"), own_reader(tokenizer), 16, quiet)
    for name, kind in COLUMNS.items():
        assert packed.columns[name].dtype == kind
        assert packed.columns[name].shape == (sum(packed.tokens) // 16, 16)
    assert packed.left_over == sum(packed.tokens) % 16


def test_the_stream_does_not_depend_on_the_length(packed, tokenizer):
    other = pack(DOCUMENTS, 100, ("prose", "chess"), own_reader(tokenizer), 16, quiet)
    for name in COLUMNS:
        stream = packed.columns[name].reshape(-1)
        np.testing.assert_array_equal(other.columns[name].reshape(-1), stream[: len(stream) - other.left_over])


def test_every_document_begins_with_end_of_text_and_covers_its_bytes(packed):
    for number, document in enumerate(DOCUMENTS):
        here = packed.columns["document"][:, 0] == 100 + number
        assert here.sum() == packed.tokens[number]
        ids = packed.columns["input_ids"][here, 0]
        assert ids[0] == 0
        assert (ids[1:] != 0).all()
        assert packed.columns["n_bytes"][here, 0][0] == 0
        assert packed.columns["n_bytes"][here, 0].sum() == len(document.text.encode())
        assert set(packed.columns["domain"][here, 0]) == {("prose", "chess").index(document.domain)}


def test_the_ply_of_a_token_is_the_half_move_that_its_last_character_lies_in(packed, tokenizer):
    for number, document in enumerate(DOCUMENTS):
        here = packed.columns["document"][:, 0] == 100 + number
        plies = packed.columns["ply"][here, 0]
        if document.domain != "chess":
            assert (plies == -1).all()
            continue
        assert plies[0] == -1
        spelled = [""] * len(sans_of(document.text))
        for token, ply in zip(packed.columns["input_ids"][here, 0][1:], plies[1:], strict=True):
            if ply >= 0:
                spelled[ply] += tokenizer.decode([int(token)])
        # What a half-move's tokens spell begins with its SAN; the number of the next move may follow.
        for san, words in zip(sans_of(document.text), map(str.split, spelled), strict=True):
            assert words[0] == san
            assert len(words) == 1 or words[1][0].isdigit()


def test_a_token_that_ends_before_a_san_belongs_to_the_half_move_before():
    text, marks = movetext(["e4", "e5"])  # "1. e4 e5"
    covered = np.array([0, 3, 1, 1, 1, 2], dtype=np.uint16)  # "", "1. ", "e", "4", " ", "e5"
    assert _plies(Document("chess:0", "chess", text, "0", marks), covered).tolist() == [-1, -1, 0, 0, 0, 1]


def test_replaying_to_the_ply_of_a_token_gives_its_board(packed, tokenizer):
    document = DOCUMENTS[1]
    here = packed.columns["document"][:, 0] == 101
    ids, plies = packed.columns["input_ids"][here, 0], packed.columns["ply"][here, 0]
    truth = boards(document.text)
    ends = np.cumsum(packed.columns["n_bytes"][here, 0].astype(int))
    for at in range(1, len(ids)):
        read = document.text[: ends[at]]
        if not document.text[ends[at] :].startswith((" ", "\n")) and ends[at] != len(document.text):
            continue  # the token ends inside a word
        board = chess.Board()
        for san in sans_of(read):
            board.push_san(san)
        wanted = [(p.piece_type + (0 if p.color else 6)) if (p := board.piece_at(s)) else 0 for s in range(64)]
        assert len(board.move_stack) == plies[at] + 1
        np.testing.assert_array_equal(truth[plies[at] + 1], wanted)
