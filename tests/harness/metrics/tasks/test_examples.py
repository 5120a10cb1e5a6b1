from __future__ import annotations

import itertools
import random
from collections import Counter

import numpy as np
import pytest

from harness.corpus import Document
from harness.corpus.chess import board_at, movetext, random_game
from harness.metrics.tasks import examples


def games(n: int) -> dict[int, Document]:
    found = {}
    for number in range(n):
        sans, result = random_game(random.Random(number), 120)
        text, marks = movetext(sans, result)
        found[number] = Document(f"chess:{number}", "chess", text, str(number), marks)
    return found


def prose(n: int) -> dict[int, Document]:
    words = ["alpha", "beta", "gamma", "delta", "omega", "sigma", "kappa", "theta"]
    chance = random.Random(0)
    texts = [" ".join(chance.choice(words) for _ in range(80)) + "." for _ in range(n)]
    return {i: Document(f"p{i}", "prose", text, str(i)) for i, text in enumerate(texts)}


def test_the_chess_answer_is_legal_after_its_context_and_the_others_are_not() -> None:
    import chess

    played = games(8)
    questions = examples.chess_legal(played, 40, np.random.default_rng(0))
    assert len(questions) == 40
    for question in questions:
        text = played[question.document].text
        assert text.startswith(question.context)
        ply = len([word for word in question.context.split() if not word.endswith(".")])
        board = board_at(text, ply)
        legal = []
        for san in question.choices:
            try:
                board.parse_san(san)
                legal.append(True)
            except chess.IllegalMoveError:
                legal.append(False)
        assert legal == [i == question.label for i in range(examples.CHOICES)]


def test_the_cloze_answer_follows_its_context_in_the_document() -> None:
    documents = prose(5)
    for question in examples.cloze(documents, 25, np.random.default_rng(0)):
        answer = question.choices[question.label]
        assert f"{question.context} {answer}" in documents[question.document].text
        assert len(set(question.choices)) == examples.CHOICES


def test_neither_frequency_nor_length_tells_the_cloze_answer() -> None:
    chance = random.Random(0)
    words = [chance.choice("bcdfg") + vowels + "n" * (1 + i % 7) for i, vowels in enumerate(_syllables(60))]
    weights = [1 / (1 + rank) for rank in range(len(words))]
    texts = [" ".join(chance.choices(words, weights, k=120)) + "." for _ in range(30)]
    documents = {i: Document(f"p{i}", "prose", text, str(i)) for i, text in enumerate(texts)}
    counts = Counter(word for text in texts for word in text.rstrip(".").split())
    questions = examples.cloze(documents, 800, np.random.default_rng(0))
    assert len(questions) == 800
    for judged in (lambda word: counts[word], len):
        best = [max(question.choices, key=judged) == question.choices[question.label] for question in questions]
        assert abs(np.mean(best) - 1 / 4) < 3 * np.sqrt(1 / 4 * 3 / 4 / 800)


def _syllables(n: int) -> list[str]:
    return ["".join(pair) for pair in itertools.islice(itertools.product("aeiouy", "aeiouy", "lmrst"), n)]


def test_a_board_that_is_asked_about_is_at_most_sixty_plies_old() -> None:
    questions = examples.chess_legal(games(8), 40, np.random.default_rng(0))
    plies = [len([word for word in question.context.split() if not word.endswith(".")]) for question in questions]
    assert min(plies) >= 6
    assert 30 < max(plies) <= 60


def test_the_likelier_sentence_of_a_minimal_pair_differs_in_few_words() -> None:
    for question in examples.minimal_pairs(40, np.random.default_rng(0)):
        right, wrong = question.choices[question.label], question.choices[1 - question.label]
        a, b = right.split(), wrong.split()
        assert len(a) == len(b)
        assert 1 <= sum(x != y for x, y in zip(a, b, strict=True)) <= 2


@pytest.mark.parametrize("make", [lambda n, rng: examples.chess_legal(games(8), n, rng),
                                  lambda n, rng: examples.cloze(prose(8), n, rng),
                                  examples.minimal_pairs])  # fmt: skip
def test_right_answers_stand_at_every_place_alike(make) -> None:
    labels = [question.label for question in make(160, np.random.default_rng(1))]
    places = 1 + max(labels)
    counts = np.bincount(labels, minlength=places)
    assert counts.min() > 0.6 * len(labels) / places


def test_the_same_documents_and_seed_give_the_same_files_and_nothing_for_what_they_cannot_feed(tmp_path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    for folder in (first, second):
        folder.mkdir()
        names = examples.write(prose(6), folder, 30, seed=3)
        assert names == ["cloze", "minimal_pairs", "bits_per_byte_prose"]
    for name in names:
        assert (first / f"{name}.jsonl").read_bytes() == (second / f"{name}.jsonl").read_bytes()
