"""Legal half-moves of Othello, in games and with models that can be counted by hand.

Black begins on I, N, W or 1; after I, white may answer on H, J or T.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from harness.corpus import Document
from harness.corpus.othello import PASS, SQUARES, random_games
from harness.corpus.stored import Batch
from harness.metrics.tasks import othello_legal
from harness.systems.cost import Cost
from harness.systems.evaluation import Evaluation
from harness.tables.measurement import Measurement

WORDS = 257
END = 0
SYMBOLS = SQUARES + PASS


class Tokenizer:
    """A token is a character."""

    def __init__(self, words: int = WORDS) -> None:
        self.words = words

    def __len__(self) -> int:
        return self.words

    def convert_tokens_to_ids(self, names: list[str]) -> list[int]:
        return list(map(ord, names))


def batch_of(*sequences: list[tuple[int, str]]) -> Batch:
    """Each sequence is made of (document, what the sequence shows of it), `|` being the end of text that begins it."""
    shown = [[(row, character) for row, text in parts for character in text] for parts in sequences]
    document = torch.tensor([[row for row, _ in one] for one in shown])
    ids = torch.tensor([[END if character == "|" else ord(character) for _, character in one] for one in shown])
    return Batch(ids, document, torch.zeros_like(ids), (ids != END).long(), torch.full_like(ids, -1))


def documents(*texts: str, domain: str = "othello6") -> dict[int, Document]:
    return {row: Document(str(row), domain, text, str(row)) for row, text in enumerate(texts)}


class Split:
    """One batch."""

    def __init__(self, everything: Batch) -> None:
        self.everything = everything

    def __len__(self) -> int:
        return len(self.everything.input_ids)

    def batch(self, indices: Tensor) -> Batch:
        assert len(indices) == len(self)
        return self.everything


def asked(batch: Batch, model: Callable[[Tensor], Tensor], words: int = WORDS) -> Evaluation:
    split = Split(batch)

    def run(ids: Tensor, use_cache: bool) -> SimpleNamespace:
        return SimpleNamespace(logits=model(ids))

    return Evaluation(
        system=SimpleNamespace(model=run, device=torch.device("cpu")),  # pyright: ignore[reportArgumentType]
        split=split,  # pyright: ignore[reportArgumentType]
        dev=split,  # pyright: ignore[reportArgumentType]
        sequences=len(batch.input_ids),
        codes_sequences=1,
        batch_sequences=8,
        resamples=50,
        load_codes=lambda site: pytest.fail("legal moves need no codes"),
        cost=Cost(1, 1, 1.0, 1.0, 1, 1.0, 1.0, 1),
        tokenizer=Tokenizer(words),  # pyright: ignore[reportArgumentType]
    )


def found(batch: Batch, texts: dict[int, Document], model: Callable[[Tensor], Tensor]) -> dict[str, Measurement]:
    games = othello_legal.games_of(texts)
    return {m.name.removeprefix("tasks/"): m for m in othello_legal.scores(asked(batch, model), games, 3, "")}


def alike(ids: Tensor) -> Tensor:
    return torch.zeros(*ids.shape, WORDS)


def always(character: str) -> Callable[[Tensor], Tensor]:
    return lambda ids: torch.nn.functional.one_hot(torch.full_like(ids, ord(character)), WORDS).float() * 100


# The end of one game, which nobody can know, then a game's beginning: four half-moves are legal, then three.
CUT_THEN_BEGUN = batch_of([(0, "HJ"), (1, "|I")])
TEXTS = documents("IH", "I")


def test_a_model_that_knows_nothing_gives_legal_half_moves_their_share_of_the_vocabulary() -> None:
    of = found(CUT_THEN_BEGUN, TEXTS, alike)
    assert of["othello_legal_mass"].value == pytest.approx((4 + 3) / 2 / WORDS, rel=1e-6)
    assert of["othello_legal_mass"].saw == "2 half-moves of games that begin in their sequence"
    assert of["othello_legal"].value == 0  # the likeliest of equals is the first, the end of text


def test_a_model_that_always_says_one_move_is_legal_where_it_may_be_played() -> None:
    of = found(CUT_THEN_BEGUN, TEXTS, always("I"))  # legal at the beginning, taken afterwards
    assert (of["othello_legal"].value, of["othello_legal_mass"].value) == (0.5, pytest.approx(0.5))
    of = found(CUT_THEN_BEGUN, TEXTS, always("H"))  # an answer, and no first move
    assert (of["othello_legal"].value, of["othello_legal_mass"].value) == (0.5, pytest.approx(0.5))
    of = found(CUT_THEN_BEGUN, TEXTS, always("A"))  # a corner: neither
    assert (of["othello_legal"].value, of["othello_legal_mass"].value) == (0, pytest.approx(0))


def test_probability_counts_whichever_legal_half_move_it_lies_on() -> None:
    def first_moves(ids: Tensor) -> Tensor:
        logits = torch.zeros(*ids.shape, WORDS)
        logits[..., [ord("I"), ord("N")]] = math.log(WORDS - 2)  # together two parts in three, the rest shares one
        return logits

    batch, texts = batch_of([(0, "|")]), documents("I")
    of = found(batch, texts, first_moves)
    assert of["othello_legal_mass"].value == pytest.approx(2 / 3 + 2 / 3 / (WORDS - 2), rel=1e-5)  # W and 1 of the rest
    assert of["othello_legal"].value == 1


def test_nothing_is_due_after_a_game_has_ended_and_a_forced_pass_is() -> None:
    text = next(game for game in random_games(range(200)) if PASS in game)
    batch = batch_of([(0, f"|{text}")])
    _, place, legal = othello_legal.due(batch, othello_legal.games_of(documents(text)))
    assert place.tolist() == list(range(len(text)))
    for ways, played in zip(legal, text, strict=True):
        assert ways[SYMBOLS.index(played)]
    passed = legal[text.index(PASS)]
    assert [SYMBOLS[i] for i in passed.nonzero()[:, 0].tolist()] == [PASS]


def test_only_games_that_their_sequence_begins_are_asked_in_every_sequence() -> None:
    batch = batch_of([(0, "|IH")], [(0, "J"), (1, "|I")])
    texts = documents("IH", "I")
    sequence, place, legal = othello_legal.due(batch, othello_legal.games_of(texts))
    assert list(zip(sequence.tolist(), place.tolist(), strict=True)) == [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2)]
    assert legal.sum(1).tolist()[:2] == legal.sum(1).tolist()[3:] == [4, 3]


def test_other_texts_are_not_asked_and_merged_half_moves_say_why_not() -> None:
    assert found(CUT_THEN_BEGUN, documents("ab", "c", domain="prose"), alike) == {}
    merged = asked(CUT_THEN_BEGUN, alike, words=300)
    for one in othello_legal.scores(merged, othello_legal.games_of(TEXTS), 3, "_spliced"):
        assert one.name.endswith("_spliced")
        assert math.isnan(one.value)
        assert one.reason == "a token may be several half-moves (vocab_size above 257)"
