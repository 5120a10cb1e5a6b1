"""Speaking the language and following it: one state, moved on by one symbol at a time.

`Grammar.speak` draws documents, `Grammar.follow` finds the states of a text, and `Grammar.log_probabilities` says how
likely each symbol was. All use the same tables, so what is said and what is expected cannot differ.
"""

from __future__ import annotations

import random
from bisect import bisect
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from math import log
from typing import NamedTuple

from harness.base.errors import HarnessError
from harness.corpus.planted.language import (
    AGREEING,
    CLOSING,
    CONTENT,
    DIGITS,
    NAMING,
    OPENING,
    SETTING,
    WEIGHTS,
    Language,
)


class State(NamedTuple):
    """All that decides what comes next. held: concepts, the latest first. spelt: the letters of a name so far; None
    while none is being spelt. brackets: types of the open ones, the innermost last. features: number and tense."""

    topic: int | None = None
    held: tuple[int, ...] = ()
    spelt: str | None = None
    brackets: tuple[int, ...] = ()
    counter: int = 0
    features: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Table:
    """Outcomes and their probabilities. `cumulative` ends at 1 or a little less; the last outcome takes the rest."""

    outcomes: tuple[str, ...]
    probabilities: tuple[float, ...]

    @cached_property
    def cumulative(self) -> list[float]:
        return list(accumulate(self.probabilities))[:-1]

    @cached_property
    def of(self) -> dict[str, float]:
        return dict(zip(self.outcomes, self.probabilities, strict=True))

    def draw(self, chance: random.Random) -> str:
        return self.outcomes[bisect(self.cumulative, chance.random())]


class Grammar:
    """The tables of a language, each made when it is first asked for."""

    def __init__(self, language: Language) -> None:
        self.language = language
        self._kinds: dict[tuple[bool, bool, bool], Table] = {}
        self._content: dict[tuple[int, ...], Table] = {}
        self._letters: dict[tuple[int | None, tuple[int, ...]], dict[str, Table]] = {}

    def kinds(self, state: State) -> Table:
        """Which kind of symbol comes, while no name is being spelt. A document begins with a name."""
        depth = len(state.brackets)
        key = (bool(state.held), depth > 0, depth < self.language.knobs.depth)
        if key not in self._kinds:
            possible = dict(WEIGHTS)
            if not key[0]:
                possible = {"name": 1.0}
            if not key[1]:
                possible.pop("close", None)
            if not key[2]:
                possible.pop("open", None)
            self._kinds[key] = _table(possible)
        return self._kinds[key]

    def content(self, state: State) -> Table:
        assert state.topic is not None
        key = (state.topic, *sorted(state.held))
        if key not in self._content:
            of = self.language.content(state.topic, state.held)
            self._content[key] = Table(tuple(CONTENT), tuple(of.tolist()))
        return self._content[key]

    def letters(self, state: State) -> Table:
        """The next letter of the name that is being spelt."""
        assert state.spelt is not None
        key = (state.topic, state.held)
        if key not in self._letters:
            weights: dict[str, dict[str, float]] = {}
            for concept, probability in self.language.naming(*key).items():
                name = self.language.names[concept]
                for length in range(len(name)):
                    here = weights.setdefault(name[:length], {})
                    here[name[length]] = here.get(name[length], 0.0) + probability
            self._letters[key] = {prefix: _table(letters) for prefix, letters in weights.items()}
        return self._letters[key][state.spelt]

    def symbols(self, kind: str, state: State) -> Table:
        """The symbols of a kind and how likely each is, given that a symbol of the kind comes."""
        if kind == "content":
            return self.content(state)
        if kind == "name":
            return _ONLY_NAMING
        if kind == "open":
            return _OPENING
        if kind == "close":
            return _only(CLOSING[state.brackets[-1]])
        if kind == "count":
            return _only(DIGITS[(state.counter + 1) % self.language.knobs.modulus])
        if kind == "set":
            return _SETTING
        return _AGREEING[state.features]

    def after(self, state: State, symbol: str) -> State:
        """The state once `symbol` was read. Raises HarnessError where it cannot come."""
        if state.spelt is not None:
            return self._spelt(state, symbol)
        kind = KIND_OF.get(symbol)
        if kind == "content" or kind == "agree":
            return state
        if kind == "name":
            return state._replace(spelt="")
        if kind == "open":
            return state._replace(brackets=(*state.brackets, OPENING.index(symbol)))
        if kind == "close" and state.brackets and CLOSING[state.brackets[-1]] == symbol:
            return state._replace(brackets=state.brackets[:-1])
        if kind == "count":
            return state._replace(counter=DIGITS.index(symbol))
        if kind == "set":
            return state._replace(features=_set(state.features, symbol))
        raise HarnessError(f"not a text of this language: {symbol!r} cannot follow {state}")

    def _spelt(self, state: State, letter: str) -> State:
        name = (state.spelt or "") + letter
        concept = self.language.concept_of.get(name)
        if concept is None:
            if name not in self.language.prefixes:
                raise HarnessError(f"not a text of this language: no name begins with {name!r}")
            return state._replace(spelt=name)
        held = (concept, *(other for other in state.held if other != concept))[: self.language.knobs.holding]
        return state._replace(topic=self.language.topic_of(concept), held=held, spelt=None)

    def probability(self, state: State, symbol: str) -> float:
        """P(symbol | state); 0 where it cannot come."""
        if state.spelt is not None:
            return self.letters(state).of.get(symbol, 0.0)
        kind = KIND_OF.get(symbol)
        weight = self.kinds(state).of.get(kind, 0.0) if kind else 0.0
        return weight * self.symbols(kind, state).of.get(symbol, 0.0) if kind and weight else 0.0

    def speak(self, topic: int, length: int, chance: random.Random) -> str:
        """A document of exactly `length` symbols on a topic."""
        state, said = State(), []
        of_topic = State(topic=topic, spelt="")
        while len(said) < length:
            if state.spelt is not None:
                symbol = self.letters(of_topic._replace(spelt=state.spelt) if state.topic is None else state).draw(
                    chance
                )
            else:
                symbol = self.symbols(self.kinds(state).draw(chance), state).draw(chance)
            said.append(symbol)
            state = self.after(state, symbol)
        return "".join(said)

    def follow(self, text: str) -> list[State]:
        """The state after each symbol."""
        states, state = [], State()
        for symbol in text:
            state = self.after(state, symbol)
            states.append(state)
        return states

    def log_probabilities(self, text: str) -> list[float]:
        """ln P(symbol | all before it), of every symbol: what no reader can do better than."""
        found, state = [], State()
        for symbol in text:
            found.append(log(self.probability(state, symbol)))
            state = self.after(state, symbol)
        return found


def _table(weights: dict[str, float]) -> Table:
    total = sum(weights.values())
    return Table(tuple(weights), tuple(weight / total for weight in weights.values()))


def _only(symbol: str) -> Table:
    return _SINGLE[symbol]


def _set(features: tuple[int, int], symbol: str) -> tuple[int, int]:
    feature = 0 if symbol in SETTING[0] else 1
    value = SETTING[feature].index(symbol)
    return (value, features[1]) if feature == 0 else (features[0], value)


KIND_OF = {
    **dict.fromkeys(CONTENT, "content"),
    NAMING: "name",
    **dict.fromkeys(OPENING, "open"),
    **dict.fromkeys(CLOSING, "close"),
    **dict.fromkeys(DIGITS, "count"),
    **dict.fromkeys("".join(SETTING), "set"),
    **dict.fromkeys("".join(AGREEING), "agree"),
}
_SINGLE = {symbol: Table((symbol,), (1.0,)) for symbol in CLOSING + DIGITS + NAMING}
_ONLY_NAMING = _SINGLE[NAMING]
_OPENING = _table(dict.fromkeys(OPENING, 1.0))
_SETTING = _table(dict.fromkeys("".join(SETTING), 1.0))
_AGREEING = {
    (number, tense): _table({AGREEING[0][number]: 1.0, AGREEING[1][tense]: 1.0})
    for number in (0, 1)
    for tense in (0, 1)
}
