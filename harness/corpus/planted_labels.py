"""The hidden state of the planted language as concepts that hold or not, symbol by symbol."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from harness.corpus import Document
from harness.corpus.config import register_labeller
from harness.corpus.labels import Concept, Integers
from harness.corpus.planted import PlantedCorpus, grammar_of
from harness.corpus.planted.language import OPENING, Language
from harness.corpus.planted.speech import Grammar, State


class PlantedLabels:
    """Kinds, from what one symbol tells to what needs the whole text: `name` (one is being spelt), `concept` (it is
    among the latest named), `conjunction`, `mixture`, `additive` (both concepts of such a pair hold; `parts` are the
    two), `topic`, `agreement` (plural, past), `depth` (at least so many brackets are open), `bracket` (type of the
    innermost), `counter` (its value)."""

    from_beginning = True  # concepts hold for long and the counter for ever; as a document is a sequence, none is cut

    def __init__(self, grammar: Grammar) -> None:
        self.grammar = grammar
        self.concepts = _concepts(grammar.language)

    @cached_property
    def _first(self) -> dict[str, int]:
        """Where each kind begins in `concepts`; pairs of all relations lie together, in the order of the language."""
        found: dict[str, int] = {}
        for place, concept in enumerate(self.concepts):
            found.setdefault("pair" if concept.parts else concept.kind, place)
        return found

    def held(self, document: Document, ends: Integers) -> tuple[Integers, Integers]:
        states = self.grammar.follow(document.text)
        places = np.asarray(ends) - 1  # a symbol is a byte; the state after a token is that after its last
        known: dict[State, list[int]] = {}
        tokens: list[int] = []
        concepts: list[int] = []
        for token, place in enumerate(places.tolist()):
            state = states[place]
            if state not in known:
                known[state] = self.of(state)
            holding = known[state]
            tokens += [token] * len(holding)
            concepts += holding
        return np.array(tokens, dtype=np.int64), np.array(concepts, dtype=np.int64)

    def of(self, state: State) -> list[int]:
        """Which concepts hold in a state."""
        first, language = self._first, self.grammar.language
        found = list(state.held)
        found += [first["pair"] + pair for pair in language.pairs_among(state.held)]
        if state.topic is not None:
            found.append(first["topic"] + state.topic)
        found += [first["agreement"] + feature for feature, value in enumerate(state.features) if value]
        found += [first["depth"] + depth for depth in range(len(state.brackets))]
        if state.brackets:
            found.append(first["bracket"] + state.brackets[-1])
        found.append(first["counter"] + state.counter)
        if state.spelt is not None:
            found.append(first["name"])
        return found


def _concepts(language: Language) -> tuple[Concept, ...]:
    named = [f"concept {name}" for name in language.names]
    return (
        *(Concept(name, "concept") for name in named),
        *(
            Concept(f"{pair.relation} {language.names[pair.first]} {language.names[pair.second]}",
                    pair.relation, (named[pair.first], named[pair.second]))
            for pair in language.pairs
        ),
        *(Concept(f"topic {topic}", "topic") for topic in range(language.knobs.topics)),
        *(Concept(name, "agreement") for name in ("plural", "past")),
        *(Concept(f"depth at least {depth}", "depth") for depth in range(1, language.knobs.depth + 1)),
        *(Concept(f"inside {symbol}", "bracket") for symbol in OPENING),
        *(Concept(f"counter {value}", "counter") for value in range(language.knobs.modulus)),
        Concept("in a name", "name"),
    )  # fmt: skip


def planted_labeller(config: PlantedCorpus, domains: tuple[str, ...]) -> PlantedLabels:
    return PlantedLabels(grammar_of(config.knobs()))


register_labeller("planted", planted_labeller)
