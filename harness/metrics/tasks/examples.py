"""Examples of the local tasks, made from held-out documents and a small grammar; one jsonl file a task.

Everything is drawn from the documents' own text with a seeded generator, so that a corpus always gives the same
examples, and two systems of a comparison are asked the same questions. Right answers stand at random places: an answer
by position scores chance.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import chess
import numpy as np

from harness.corpus import Document
from harness.corpus.chess import board_at, sans_of

CHOICES = 4  # of cloze and chess
_CONTEXT_WORDS = 40
# Plies before the question: sixty take about 200 tokens, and a board whose first moves are cut off is not known.
_FEWEST_PLIES, _MOST_PLIES = 6, 60
_WORD = re.compile(r"(?<= )[a-z]{4,12}(?=[ .,;])")


@dataclass(frozen=True)
class Question:
    """document: row in the corpus's table of documents, −1 for what belongs to none."""

    document: int
    context: str
    choices: list[str]
    label: int


@dataclass(frozen=True)
class Passage:
    document: int
    text: str


def write(documents: dict[int, Document], folder: Path, limit: int, seed: int) -> list[str]:
    """The files of every task that these documents can feed, at most `limit` examples in each; names of the files,
    without suffix. documents: by row number, held-out."""
    rng = np.random.default_rng(seed)
    games = {row: d for row, d in documents.items() if d.domain == "chess"}
    prose = {row: d for row, d in documents.items() if d.domain not in ("chess", "othello6")}
    files: dict[str, Sequence[Question | Passage]] = {
        "cloze": cloze(prose, limit, rng),
        "chess_legal": chess_legal(games, limit, rng),
        "minimal_pairs": minimal_pairs(limit, rng) if prose or games else [],  # Othello has no words at all
    }
    for domain in sorted({d.domain for d in documents.values()}):
        texts = [Passage(row, d.text) for row, d in documents.items() if d.domain == domain]
        files[f"bits_per_byte_{domain}"] = texts[: max(1, limit // 10)]
    for name, rows in files.items():
        if rows:
            lines = (json.dumps(asdict(row), ensure_ascii=False) for row in rows)
            (folder / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return [name for name, rows in files.items() if rows]


def cloze(documents: dict[int, Document], limit: int, rng: np.random.Generator) -> list[Question]:
    """The next word after up to 40 words of a passage, among words of the domain of about its length.

    The others are drawn as the answer is, any place of any document, and a question where a word stands twice is thrown
    away: so the answer is as likely to be the most frequent of the four, or the shortest, as any other.
    """
    places = {row: _cloze_places(document.text) for row, document in documents.items()}
    often: dict[tuple[str, int], Counter[str]] = {}  # by domain and length: word -> how likely the answer is it
    for row, document in documents.items():
        for place in places[row]:
            same = often.setdefault((document.domain, _length_class(place[0])), Counter())
            same[place[0]] += 1 / len(places[row])  # pyright: ignore[reportArgumentType] (counts may be fractions)
    found: list[Question] = []
    for row, document in _in_rounds(documents, limit):
        if not places[row]:
            continue
        place = places[row][rng.integers(len(places[row]))]
        same = often[document.domain, _length_class(place[0])]
        chance = np.array(list(same.values()))
        wrong = rng.choice(list(same), CHOICES - 1, p=chance / chance.sum()).tolist()
        if len({place[0], *wrong}) < CHOICES:
            continue
        context = " ".join(document.text[: place.start()].split(" ")[-_CONTEXT_WORDS - 1 :]).strip()
        found.append(_question(row, context, place[0], wrong, rng))
        if len(found) == limit:
            break
    return found


def _cloze_places(text: str) -> list[re.Match[str]]:
    """Words that may be asked for: those after the first twenty."""
    begun = text.split(" ", _CONTEXT_WORDS // 2)
    start = len(text) - len(begun[-1]) if len(begun) > _CONTEXT_WORDS // 2 else len(text)
    return [match for match in _WORD.finditer(text) if match.start() >= start]


def _length_class(word: str) -> int:
    return len(word) // 3


def chess_legal(games: dict[int, Document], limit: int, rng: np.random.Generator) -> list[Question]:
    """The move that was played, among moves of the same game that the board does not allow."""
    found: list[Question] = []
    for row, game in _in_rounds(games, limit):
        sans = sans_of(game.text)
        if len(sans) < 2 * _FEWEST_PLIES:
            continue
        ply = int(rng.integers(_FEWEST_PLIES, min(_MOST_PLIES + 1, len(sans))))
        board = board_at(game.text, ply)
        others = rng.permutation(list(dict.fromkeys(sans))).tolist()
        wrong = list(islice((san for san in others if not _legal(board, san)), CHOICES - 1))
        if len(wrong) < CHOICES - 1:
            continue
        context = game.text[: game.marks[ply]].rstrip()
        found.append(_question(row, context, sans[ply], wrong, rng))
        if len(found) == limit:
            break
    return found


def _legal(board: chess.Board, san: str) -> bool:
    try:
        board.parse_san(san)
    except ValueError:
        return False
    return True


_NOUNS = (
    ("nation", "nations"), ("law", "laws"), ("report", "reports"), ("court", "courts"), ("ship", "ships"),
    ("officer", "officers"), ("state", "states"), ("value", "values"), ("array", "arrays"), ("program", "programs"),
)  # fmt: skip
_VERBS = (("is", "are"), ("was", "were"), ("has", "have"), ("does", "do"))
_ENDS = {"is": "ready", "was": "lost", "has": "been changed", "does": "not change"}


def minimal_pairs(limit: int, rng: np.random.Generator) -> list[Question]:
    """Agreement of verb and subject, next to it and across a phrase, of determiner and noun; and the order of words."""
    makers = (_agreement, _agreement_across, _determiner, _order)
    return [_question(-1, "", *makers[i % len(makers)](rng), rng) for i in range(limit)]


def _agreement(rng: np.random.Generator) -> tuple[str, list[str]]:
    noun, verb, number = _NOUNS[rng.integers(len(_NOUNS))], _VERBS[rng.integers(len(_VERBS))], rng.integers(2)
    sentence = f"The {noun[number]} {{}} {_ENDS[verb[0]]}."
    return sentence.format(verb[number]), [sentence.format(verb[1 - number])]


def _agreement_across(rng: np.random.Generator) -> tuple[str, list[str]]:
    first, second = rng.choice(len(_NOUNS), 2, replace=False)
    verb, number = _VERBS[rng.integers(len(_VERBS))], rng.integers(2)
    sentence = f"The {_NOUNS[first][number]} of the {_NOUNS[second][1 - number]} {{}} {_ENDS[verb[0]]}."
    return sentence.format(verb[number]), [sentence.format(verb[1 - number])]


def _determiner(rng: np.random.Generator) -> tuple[str, list[str]]:
    noun, number = _NOUNS[rng.integers(len(_NOUNS))], rng.integers(2)
    right, wrong = (("this", "these"), ("these", "this"))[number]
    verb = ("is", "are")[number]
    return f"We know that {right} {noun[number]} {verb} new.", [f"We know that {wrong} {noun[number]} {verb} new."]


def _order(rng: np.random.Generator) -> tuple[str, list[str]]:
    noun = _NOUNS[rng.integers(len(_NOUNS))][1]
    right, wrong = (("of the", "the of"), ("in the", "the in"), ("to the", "the to"))[rng.integers(3)]
    return f"The number {right} {noun} is known.", [f"The number {wrong} {noun} is known."]


def _question(row: int, context: str, right: str, wrong: list[str], rng: np.random.Generator) -> Question:
    label = int(rng.integers(len(wrong) + 1))
    return Question(row, context, [*wrong[:label], right, *wrong[label:]], label)


def _in_rounds(documents: dict[int, Document], limit: int) -> Iterable[tuple[int, Document]]:
    """Every document in turn, again and again, but not for ever."""
    for _ in range(limit):
        yield from documents.items()
        if not documents:
            return
