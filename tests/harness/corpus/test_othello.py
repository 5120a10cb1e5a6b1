import random
from itertools import islice

import numpy as np
import pytest

from harness.base.errors import HarnessError
from harness.corpus import floor, quiet
from harness.corpus.build import build, load
from harness.corpus.labels import label
from harness.corpus.othello import PASS, RULES, SQUARES, OthelloCorpus, legal_after, random_games, replay
from harness.corpus.othello_labels import CONCEPTS
from harness.corpus.select import select

SYMBOLS = SQUARES + PASS
GAMES = random_games(range(300))


def games(config, count):
    return [document for source in islice(config.sources()["othello6"], count) for document in source.read()]


def walk(text):
    """Board by character, side to move, and what is legal, at the start and after every half-move: square by square."""
    board, side = ["."] * 36, "X"
    for place, who in ((14, "O"), (21, "O"), (15, "X"), (20, "X")):
        board[place] = who

    def turned(place, side):
        found = []
        for a, b in [(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1) if a or b]:
            line, r, c = [], place // 6 + a, place % 6 + b
            while 0 <= r < 6 and 0 <= c < 6 and board[6 * r + c] not in (".", side):
                line.append(6 * r + c)
                r, c = r + a, c + b
            if 0 <= r < 6 and 0 <= c < 6 and board[6 * r + c] == side:
                found += line
        return found

    def position(last):
        legal = {SYMBOLS[place] for place in range(36) if board[place] == "." and turned(place, side)}
        others = any(board[place] == "." and turned(place, "XO"[side == "X"]) for place in range(36))
        return "".join(board), side, legal or ({PASS} if others else set()), set(last)

    yield position([])
    for character in text:
        last = []
        if character != PASS:
            last = turned(SYMBOLS.index(character), side)
            for place in [SYMBOLS.index(character), *last]:
                board[place] = side
        side = "XO"[side == "X"]
        yield position(last)


def test_games_are_legal_to_their_end_and_passes_are_written():
    for text in GAMES[:150]:
        positions = list(walk(text))
        assert all(character in legal for character, (_, _, legal, _) in zip(text, positions, strict=False))
        assert positions[-1][2] == set()
    assert any(PASS in text for text in GAMES)
    assert {len(text.replace(PASS, "")) for text in GAMES} >= {31, 32}  # some end before the board is full


def test_every_legal_move_is_equally_likely():
    many = random_games(range(4000))
    first = np.unique([text[0] for text in many], return_counts=True)[1]
    assert len(first) == 4
    assert ((first - 1000) ** 2 / 1000).sum() < 16.3  # chi squared, 3 degrees of freedom, p = 0.001
    rank, choices = [], 10  # among ten legal moves, wherever in a game there are ten
    for text in many[:1500]:
        for row, character in zip(legal_after(text), text, strict=False):
            if row.sum() == choices:
                rank.append(int(row[: SYMBOLS.index(character)].sum()))
    counts = np.bincount(rank, minlength=choices)
    expected = len(rank) / choices
    assert expected > 50
    assert ((counts - expected) ** 2 / expected).sum() < 27.9  # 9 degrees of freedom


def test_games_are_the_same_bytes_and_do_not_depend_on_each_other():
    twice = [games(OthelloCorpus(), 20), games(OthelloCorpus(), 20)]
    assert twice[0] == twice[1]
    assert random_games([17]) == [GAMES[17]]
    assert not {game.text for game in games(OthelloCorpus(seed=1), 20)} & {game.text for game in twice[0]}
    assert twice[0][0].text == "1QH0JIR876TWCNMBADEGSY3LX952Z4-K"  # fixed for good
    assert len({game.id for game in twice[0]}) == 20


def test_what_may_follow_is_what_a_walk_over_the_squares_says():
    for text in GAMES[:60]:
        wanted = [legal for _, _, legal, _ in walk(text)]
        assert [{SYMBOLS[place] for place in np.flatnonzero(row)} for row in legal_after(text)] == wanted
        assert np.array_equal(legal_after(text[:9]), legal_after(text)[:10])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A", "half-move 1, 'A', is not legal"),
        ("IO", "half-move 2, 'O'"),
        ("Ix", "half-move 2, 'x'"),
        ("I-", "2 is a pass"),
    ],
)
def test_a_text_that_breaks_the_rules_is_refused(text, message):
    with pytest.raises(HarnessError, match=f"not a game of Othello: .*{message}"):
        replay(text)


def test_no_half_move_is_taken_that_a_walk_over_the_squares_forbids():
    for ply, (_, _, legal, _) in enumerate(walk(GAMES[0])):
        for character in set(SYMBOLS) - legal if ply % 4 == 0 else ():
            with pytest.raises(HarnessError, match=f"half-move {ply + 1}"):
                replay(GAMES[0][:ply] + character)


def test_labels_are_what_a_walk_over_the_squares_says():
    labeller = OthelloCorpus().labeller(("othello6",))
    assert labeller.concepts == CONCEPTS
    assert len({concept.name for concept in CONCEPTS}) == len(CONCEPTS) == 36 + 36 + 32 + 32 + 32 + 1
    chance, seen = random.Random(0), set()
    for document in games(OthelloCorpus(), 200):
        text = document.text
        ends = sorted(chance.sample(range(1, len(text) + 1), min(20, len(text))))
        tokens, concepts = labeller.held(document, np.array(ends))
        found = [set() for _ in ends]
        for token, concept in zip(tokens, concepts, strict=True):
            found[token].add(CONCEPTS[concept].name)
        positions = list(walk(text))
        for end, names in zip(ends, found, strict=True):
            board, side, legal, last = positions[end]
            wanted = {f"legal {RULES.name(SYMBOLS.index(c))}" for c in legal - {PASS}}
            wanted |= {"pass"} if PASS in legal else set()
            wanted |= {f"turned {RULES.name(place)}" for place in last}
            for place, who in enumerate(board):
                wanted.add(f"{'empty' if who == '.' else 'mine' if who == side else 'theirs'} {RULES.name(place)}")
            assert names == wanted
            seen |= names
    assert seen == {concept.name for concept in CONCEPTS}


def test_a_token_is_a_half_move_and_its_labels_lie_on_it(tmp_path):
    config = OthelloCorpus(bytes_per_domain=20_000, sequence_length=48)
    build(config, tmp_path)
    corpus = load(tmp_path)
    split = corpus.eval
    assert set(np.unique(split.column("n_bytes"))) == {0, 1}
    documents = [corpus.documents[row] for row in range(len(corpus.documents))]
    labels = label(config.labeller(corpus.info.domains), split, documents.__getitem__)
    place = {concept.name: number for number, concept in enumerate(CONCEPTS)}
    ids, tokenizer = split.column("input_ids").reshape(-1), corpus.tokenizer()
    for token in range(len(ids) - 1):
        following = tokenizer.decode([int(ids[token + 1])])
        held = set(labels.held[labels.indptr[token] : labels.indptr[token + 1]].tolist())
        if following in SQUARES and held:  # what comes was legal
            assert place[f"legal {RULES.name(SQUARES.index(following))}"] in held
        elif following == PASS and held:
            assert place["pass"] in held


def test_games_that_a_sequence_cuts_have_neither_labels_nor_a_floor(tmp_path):
    config = OthelloCorpus(bytes_per_domain=20_000, sequence_length=48)
    build(config, tmp_path)
    corpus = load(tmp_path)
    split, documents = corpus.eval, corpus.documents.__getitem__
    labels = label(config.labeller(corpus.info.domains), split, documents)
    least = floor.log_probabilities(config, split, documents, len(split))
    ids, rows = split.column("input_ids"), split.column("document")
    for sequence in range(len(split)):
        read = None  # half-moves of the game that the sequence shows so far; None: it does not show the beginning
        for place in range(split.length):
            ends = ids[sequence, place] == corpus.info.end_of_text
            game = documents(rows[sequence, place]).text
            if place == 0:
                pass  # nothing was read that it could be told from
            elif read is None:
                assert np.isnan(least[sequence, place])
            elif ends:
                assert least[sequence, place] == 0
            else:
                assert least[sequence, place] == pytest.approx(-np.log(legal_after(game)[read].sum()))
            read = 0 if ends else None if read is None else read + 1
            token = sequence * split.length + place
            assert labels.known[token] == (read is not None)
            assert (labels.indptr[token + 1] > labels.indptr[token]) == (read is not None and read > 0)
    assert 0.1 < np.isnan(least).mean() < 0.9


def test_only_whole_games_are_repeats():
    selection = select(OthelloCorpus(bytes_per_domain=60_000), OthelloCorpus().sources(), quiet)
    texts = [document.text for documents in selection.documents.values() for document in documents]
    assert len(set(texts)) == len(texts) > 1500
    assert selection.repeats == {"othello6": 0}
    assert not any(a != b and b.startswith(a) for a, b in zip(sorted(texts), sorted(texts)[1:], strict=False))


def test_the_floor_of_a_half_move_is_the_log_number_of_legal_ones():
    config = OthelloCorpus()
    for text in GAMES[:20]:
        ways = legal_after(text)[:-1].sum(1)
        assert config.log_probabilities(text) == pytest.approx((-np.log(ways)).tolist())
