"""A planted language: text whose hidden state is known at every symbol, and whose entropy is known exactly.

`language.py` says what is planted, `speech.py` speaks and follows it; `planted_labels.py`, beside this folder, says
which concepts hold where. Small models train to the floor of such a world, so what their units mean can be counted.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Annotated, Literal

from pydantic import Field, model_validator

from harness.corpus import Document, Source, Sources, digest
from harness.corpus.config import CorpusConfig, register
from harness.corpus.planted.language import CONTENT, DIGITS, Knobs, Language, capacity
from harness.corpus.planted.speech import Grammar

Share = Annotated[float, Field(ge=0, le=1)]


class PlantedCorpus(CorpusConfig):
    """One domain a topic, and one document a sequence: its end-of-text token and `sequence_length` − 1 symbols, so that
    a subject always sees what the floor sees. `bytes_per_domain` and `shares` decide how much there is of it; every
    document is new. `max_document_bytes` is not used."""

    kind: Literal["planted"] = "planted"
    topics: int = Field(default=4, ge=1, le=64)
    concepts: int = Field(default=64, ge=2, description="of all topics together; to force superposition, raise it")
    conjunctions: Share = Field(default=0.5, description="of the pairs: together they promote other symbols than alone")
    mixtures: Share = Field(default=0.25, description="of the pairs: one of the two promotes; the rest add up")
    holding: int = Field(default=2, ge=1, le=6, description="how many concepts hold: the latest that were named")
    promoted: int = Field(default=3, ge=1, le=len(CONTENT) // 4, description="content symbols that a concept promotes")
    strength: float = Field(default=3.5, gt=0, description="by how much, in nats of logit")
    partner: float = Field(default=0.35, ge=0, lt=1, description="how often the latest concept's partner is named next")
    depth: int = Field(default=2, ge=0, le=8, description="how deep brackets nest")
    modulus: int = Field(default=5, ge=1, le=len(DIGITS), description="what the counter counts modulo")
    bytes_per_domain: int = Field(default=600_000, gt=0, description="text wanted of each topic, all splits together")
    vocab_size: int = Field(default=257, ge=257, le=257, description="a token a symbol: 256 bytes and the end of text")

    @model_validator(mode="after")
    def _possible(self) -> PlantedCorpus:
        if self.concepts % (2 * self.topics):
            step = 2 * self.topics
            near = max(step, round(self.concepts / step) * step)
            raise ValueError(f"concepts {self.concepts}: pairs within {self.topics} topics need a multiple of {step} "
                             f"(nearest: {near})")  # fmt: skip
        if self.concepts > capacity():
            raise ValueError(f"concepts {self.concepts}: there are {capacity()} names")
        if self.concepts // self.topics <= self.holding:
            raise ValueError(f"holding {self.holding}: a topic has only {self.concepts // self.topics} concepts")
        if self.conjunctions + self.mixtures > 1:
            raise ValueError(f"conjunctions {self.conjunctions} and mixtures {self.mixtures} sum to more than 1")
        return self

    def knobs(self) -> Knobs:
        return Knobs(**{name: getattr(self, name) for name in Knobs.__dataclass_fields__})

    def sources(self) -> dict[str, Sources]:
        grammar = grammar_of(self.knobs())
        return {
            _domain(topic): Spoken(grammar, topic, self.sequence_length - 1, self.seed) for topic in range(self.topics)
        }

    def log_probabilities(self, text: str) -> list[float] | None:
        return grammar_of(self.knobs()).log_probabilities(text)


@cache
def grammar_of(knobs: Knobs) -> Grammar:
    """Kept: its tables fill up as it is used."""
    return Grammar(Language(knobs))


@dataclass(frozen=True)
class Spoken:
    """Endlessly many documents on a topic, each from a seed of its own: number 17 is the same whether or not number 16
    was spoken."""

    grammar: Grammar
    topic: int
    length: int
    seed: int

    def __iter__(self) -> Iterator[Source]:
        number = 0
        while True:
            name = f"planted-{self.seed}-{self.topic}-{number}"
            yield Source(name, partial(self._spoken, name))
            number += 1

    def _spoken(self, name: str) -> list[Document]:
        text = self.grammar.speak(self.topic, self.length, random.Random(digest("planted", name)))
        return [Document(id=f"planted:{name}", domain=_domain(self.topic), text=text, source=name)]


def _domain(topic: int) -> str:
    return f"topic{topic}"


register("planted", PlantedCorpus)
