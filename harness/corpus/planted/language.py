"""What is planted: a language drawn from a seed, whose every probability is known.

A document speaks of one topic. It names concepts of the topic ("␣" and the letters of the name), and the latest few
that it named hold: they decide which content symbols come. Between them stand brackets, a counter, and symbols that
agree with a number and a tense set earlier. Everything a reader needs is a function of the text read so far, except
the topic before the first name; that one is known by its prior.

All symbols are single ASCII characters, so that a byte-level vocabulary without merges has one token a symbol.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from harness.corpus import digest

Floats = NDArray[np.float64]
T = TypeVar("T")
Relation = Literal["conjunction", "mixture", "additive"]

LETTERS = "abcdefghijkl"  # of names
CONTENT = "ABCDEFGHIJKLMNOPQRSTUVWXYZmnopqrstuvwxyz"
NAMING = " "  # begins a name
OPENING, CLOSING = "([{", ")]}"
DIGITS = "0123456789"
# Two features, each with two values: the symbols that set it, and those that must agree with it.
SETTING = ("<>", "-+")
AGREEING = (",;", ".!")

# What comes next, while no name is being spelt: relative weights of the kinds that are possible there.
WEIGHTS = {
    "name": 0.09,
    "open": 0.05,
    "close": 0.12,
    "count": 0.05,
    "set": 0.04,
    "agree": 0.1,
    "content": 0.55,
}


@dataclass(frozen=True)
class Pair:
    """Two concepts of one topic. conjunction: together they promote symbols that neither promotes alone, and theirs no
    more. mixture: every content symbol is promoted by one of the two, drawn with equal chance. additive: what they
    promote adds up in the logits, as with two concepts that are no pair. All three are named together equally often.
    """

    first: int
    second: int
    relation: Relation


@dataclass(frozen=True)
class Knobs:
    """How much is planted. See `PlantedCorpus`, which is what a person writes."""

    topics: int
    concepts: int
    conjunctions: float
    mixtures: float
    holding: int
    promoted: int
    strength: float
    partner: float
    depth: int
    modulus: int
    seed: int


class Language:
    """Names, pairs and what promotes which symbol, drawn once from `knobs.seed`.

    names: of every concept, prefix-free, two letters for half of them and three for the others. Concepts
    `t·n … (t+1)·n − 1` belong to topic t, in order of frequency: the i-th has Zipf weight 1/(i + 1). pairs: a perfect
    matching within each topic. lift: `[topics + concepts + pairs, content]` what each adds to the content logits.
    """

    def __init__(self, knobs: Knobs) -> None:
        self.knobs = knobs
        self.per_topic = knobs.concepts // knobs.topics
        chance = random.Random(digest("planted language", knobs.seed))
        self.names = _names(knobs.concepts, chance)
        self.concept_of = {name: concept for concept, name in enumerate(self.names)}
        self.pairs = _pairs(knobs, self.per_topic, chance)
        self.partner = {}
        self.pair_of: dict[tuple[int, int], int] = {}
        for number, pair in enumerate(self.pairs):
            self.partner[pair.first], self.partner[pair.second] = pair.second, pair.first
            self.pair_of[min(pair.first, pair.second), max(pair.first, pair.second)] = number
        self.lift = self._lifts(chance)
        zipf = 1 / np.arange(1, self.per_topic + 1)
        self.zipf: Floats = zipf / zipf.sum()

    def topic_of(self, concept: int) -> int:
        return concept // self.per_topic

    def members(self, topic: int) -> range:
        """The concepts of a topic, from the most frequent on."""
        return range(topic * self.per_topic, (topic + 1) * self.per_topic)

    def promoted(self, row: int) -> str:
        """The content symbols that a row of `lift` raises. A topic lifts all a little; its row says nothing here."""
        return "".join(CONTENT[at] for at in np.flatnonzero(self.lift[row] > 0))

    @cached_property
    def prefixes(self) -> frozenset[str]:
        """Every beginning of a name, the empty one too, and no whole name."""
        return frozenset(name[:length] for name in self.names for length in range(len(name)))

    def pairs_among(self, held: Sequence[int]) -> list[int]:
        """Which pairs have both concepts in `held`. A concept is in one pair at most, so they do not overlap."""
        found = (self.pair_of.get((min(a, b), max(a, b))) for a, b in itertools.combinations(held, 2))
        return sorted(pair for pair in found if pair is not None)

    def content(self, topic: int, held: Sequence[int]) -> Floats:
        """P(content symbol | topic, held concepts, in any order). `[content]`

        softmax(topic + Σ lifts of the held), in which a conjunction's own lift takes the place of its parts'; over
        mixtures the mean of the softmaxes with one of the two each.
        """
        first_pair = self.knobs.topics + self.knobs.concepts
        bound: set[int] = set()
        fixed = self.lift[topic].copy()
        alternatives: list[tuple[int, int]] = []
        for number in self.pairs_among(held):
            pair = self.pairs[number]
            if pair.relation == "conjunction":
                fixed += self.lift[first_pair + number]
            elif pair.relation == "mixture":
                alternatives.append((pair.first, pair.second))
            else:
                continue
            bound |= {pair.first, pair.second}
        for concept in held:
            if concept not in bound:
                fixed += self.lift[self.knobs.topics + concept]
        options = list(itertools.product(*alternatives))
        mixed = np.zeros(len(CONTENT))
        for chosen in options:
            logits = fixed + sum((self.lift[self.knobs.topics + concept] for concept in chosen), np.zeros(len(CONTENT)))
            weight = np.exp(logits - logits.max())
            mixed += weight / weight.sum()
        return mixed / len(options)

    def naming(self, topic: int | None, held: Sequence[int]) -> dict[int, float]:
        """P(the next concept named | topic, held concepts from the latest on), of those that are possible.

        Zipf over the topic without those that hold; with probability `partner` instead the partner of the latest, if
        it does not hold. Before the topic is known, all topics are equally likely.
        """
        if topic is None:
            return {
                concept: float(self.zipf[at]) / self.knobs.topics
                for one in range(self.knobs.topics)
                for at, concept in enumerate(self.members(one))
            }
        free = [(at, concept) for at, concept in enumerate(self.members(topic)) if concept not in held]
        total = sum(float(self.zipf[at]) for at, _ in free)
        partner = self.partner.get(held[0]) if held else None
        boost = self.knobs.partner if partner is not None and partner not in held else 0.0
        found = {concept: (1 - boost) * float(self.zipf[at]) / total for at, concept in free}
        if boost and partner is not None:
            found[partner] += boost
        return found

    def _lifts(self, chance: random.Random) -> Floats:
        knobs, width = self.knobs, len(CONTENT)
        rows = np.zeros((knobs.topics + knobs.concepts + len(self.pairs), width))
        for topic in range(knobs.topics):
            rows[topic] = [_normal(chance) * 0.7 for _ in range(width)]
        chosen: list[set[int]] = []
        for concept in range(knobs.concepts):
            chosen.append(set(_sample(chance, range(width), knobs.promoted)))
            rows[knobs.topics + concept, list(chosen[-1])] = knobs.strength
        for number, pair in enumerate(self.pairs):
            others = [at for at in range(width) if at not in chosen[pair.first] | chosen[pair.second]]
            if pair.relation == "conjunction":
                rows[knobs.topics + knobs.concepts + number, _sample(chance, others, knobs.promoted)] = knobs.strength
        return rows


def capacity() -> int:
    """How many names there can be: half of two letters, half of three, none the beginning of another."""
    n = len(LETTERS)
    return max(2 * short for short in range(1, n * n) if short <= (n * n - short) * n)


def _names(count: int, chance: random.Random) -> list[str]:
    short = (count + 1) // 2
    twos = ["".join(pair) for pair in itertools.product(LETTERS, repeat=2)]
    twos = _sample(chance, twos, len(twos))
    threes = [two + letter for two in twos[short:] for letter in LETTERS]
    names = [*twos[:short], *_sample(chance, threes, count - short)]
    return _sample(chance, names, count)


def _pairs(knobs: Knobs, per_topic: int, chance: random.Random) -> list[Pair]:
    """A perfect matching in every topic; the relations are shared out over all pairs by the stated shares."""
    matched: list[tuple[int, int]] = []
    for topic in range(knobs.topics):
        order = _sample(chance, range(topic * per_topic, (topic + 1) * per_topic), per_topic)
        matched += list(itertools.pairwise(order))[::2]
    conjunctions, mixtures = round(knobs.conjunctions * len(matched)), round(knobs.mixtures * len(matched))
    rest = len(matched) - conjunctions - mixtures
    shared: list[tuple[Relation, int]] = [("conjunction", conjunctions), ("mixture", mixtures), ("additive", rest)]
    relations: list[Relation] = [relation for relation, count in shared for _ in range(count)]
    relations = _sample(chance, relations, len(relations))
    return [Pair(min(both), max(both), relation) for both, relation in zip(matched, relations, strict=True)]


def _sample(chance: random.Random, items: Sequence[T], count: int) -> list[T]:
    """`count` of them without repetition, in random order. Of `random`, only `random()` is promised to stay the same
    from version to version, so this is written with it."""
    left = list(items)
    return [left.pop(int(chance.random() * len(left))) for _ in range(count)]


def _normal(chance: random.Random) -> float:
    """Standard normal, from twelve uniforms: near enough for a background."""
    return sum(chance.random() for _ in range(12)) - 6
