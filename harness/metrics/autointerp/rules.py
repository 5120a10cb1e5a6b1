"""Rules that say where a unit fires: readable conditions on a token and the tokens to its left, which can be run.

A rule is a disjunction of conjunctions of atoms. An atom asks one thing of one place: is the token one of these, does
it begin or end so, is it a number. The language knows nothing of domains. It is ours; mining.py finds the rules.
"""

from __future__ import annotations

import functools
import json
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from harness.metrics.autointerp.contexts import Context

LOOK_BACK = 8  # tokens before, for conditions on any of them
EARLIER = -1  # the place "any of the LOOK_BACK tokens before"

_PLACES = {
    0: "the token",
    1: "the token before it",
    2: "the second token before it",
    EARLIER: f"one of the {LOOK_BACK} tokens before it",
}
_OPERATORS = frozenset("=+-*/<>%^|&")
_PUNCTUATION = frozenset(string.punctuation)

# Name in a rule -> test of the token. With the white space around it only where a lambda takes `raw`.
CLASSES: dict[str, Callable[[str, str], bool]] = {
    "a number": lambda raw, text: text.isdigit(),
    "a letter alone": lambda raw, text: len(text) == 1 and text.isalpha(),
    "the start of a word": lambda raw, text: raw[0].isspace() and text.isalpha(),
    "letters with no space before them": lambda raw, text: raw.isalpha(),
    "capitalised": lambda raw, text: text[:1].isupper(),
    "in capitals": lambda raw, text: len(text) > 1 and text.isalpha() and text.isupper(),
    "punctuation": lambda raw, text: text != "" and set(text) <= _PUNCTUATION,
    "an opening bracket": lambda raw, text: not text.isalnum() and any(c in "([{" for c in text),
    "a closing bracket": lambda raw, text: not text.isalnum() and any(c in ")]}" for c in text),
    "a quotation mark": lambda raw, text: any(c in "\"'`“”‘’" for c in text),
    "an operator": lambda raw, text: text != "" and set(text) <= _OPERATORS,
    "white space": lambda raw, text: text == "",
    "a line break": lambda raw, text: "\n" in raw,
    "outside ASCII": lambda raw, text: not raw.isascii(),
}

Kind = Literal["is", "class", "begins", "ends"]


@functools.lru_cache(maxsize=1 << 18)
def classes_of(token: str) -> frozenset[str]:
    """The names in CLASSES that hold for a decoded token; the empty token is in none."""
    text = token.strip()
    return frozenset(name for name, test in CLASSES.items() if token and test(token, text))


@dataclass(frozen=True)
class Atom:
    """One condition. place: 0 the token itself, 1 and 2 the tokens before it, EARLIER any of the LOOK_BACK before.
    values: the tokens allowed (`is`, white space counts), one class, or one string of letters (white space apart)."""

    kind: Kind
    values: tuple[str, ...]
    place: int = 0
    negated: bool = False

    @property
    def cost(self) -> float:
        """What a reader has to hold in mind, in words about."""
        return len(self.values) + 0.5 * (self.kind in ("begins", "ends")) + 0.5 * (self.place != 0) + 0.5 * self.negated

    def asks(self, tokens: Sequence[str]) -> np.ndarray:
        """Whether each token is what the atom asks for, leaving the place and the negation aside. `[tokens]` bool"""
        if self.kind == "is":
            return np.array([token in self.values for token in tokens], bool)
        value = self.values[0]
        if self.kind == "class":
            return np.array([value in classes_of(token) for token in tokens], bool)
        if self.kind == "begins":
            return np.array([token.strip().startswith(value) for token in tokens], bool)
        return np.array([token.strip().endswith(value) for token in tokens], bool)

    def holds(self, tokens: Sequence[str]) -> np.ndarray:
        """`[tokens]` bool, for every token of a window. What lies before the window is no token at all."""
        return at_place(self.asks(tokens)[None], self.place)[0] ^ self.negated

    def __str__(self) -> str:
        shown = [json.dumps(value, ensure_ascii=False) for value in self.values]
        no = "not " if self.negated else ""
        if self.kind == "is":
            said = f"is {no}{shown[0]}" if len(shown) == 1 else f"is {no}one of {', '.join(shown)}"
        elif self.kind == "class":
            said = f"is {no}{self.values[0]}"
        else:
            said = f"{'does not ' if self.negated else ''}{self.kind} with {shown[0]}"
            said = said.replace("not begins", "not begin").replace("not ends", "not end")
        place = f"none of the {LOOK_BACK} tokens before it" if self.negated and self.place == EARLIER else None
        return f"{place} {said.replace('not ', '', 1)}" if place else f"{_PLACES[self.place]} {said}"


def at_place(asked: np.ndarray, place: int) -> np.ndarray:
    """`asked` `[windows, tokens]` bool of each token → whether it holds at `place` seen from each token."""
    if place == 0:
        return asked
    found = np.zeros_like(asked)
    for back in range(1, LOOK_BACK + 1) if place == EARLIER else (place,):
        found[:, back:] |= asked[:, : max(0, asked.shape[1] - back)]
    return found


@dataclass(frozen=True)
class Rule:
    """Fires where all atoms of some clause hold. No clauses: never."""

    clauses: tuple[tuple[Atom, ...], ...] = ()

    @property
    def cost(self) -> float:
        return sum(atom.cost for clause in self.clauses for atom in clause)

    def predict(self, context: Context) -> list[float]:
        """1 or 0 for every token of the window."""
        fires = np.zeros(len(context.tokens), bool)
        for clause in self.clauses:
            fires |= np.logical_and.reduce([atom.holds(context.tokens) for atom in clause])
        return fires.astype(float).tolist()

    def __str__(self) -> str:
        """One English sentence."""
        if not self.clauses:
            return f"No short rule on a token and the {LOOK_BACK} tokens before it says where the unit fires."
        clauses = [" and ".join(map(str, clause)) for clause in self.clauses]
        return f"The unit fires where {', or where '.join(clauses)}."
