"""What holds in any text: its domain, open brackets and quotes, the word being read, addresses, beginnings of lines.

All of it is causal: a label says what the characters up to a token's end decide, whatever comes after. A token that
ends inside a character (bytes of UTF-8) has read as far as the character before. Excerpts begin and end anywhere, so
brackets and quotes need not match:
- a closing bracket closes the last open one of its kind and those opened after that; one that has none is passed over;
- a straight double quote opens or closes by turns;
- a blank line closes every bracket and quote, so that one that nobody closed does not stay open for the rest.

A document that a sequence cuts keeps its labels: words, addresses and lines are told by what stands near, and a bracket
or quote that opened before the cut, which the sequence does not show, is rare beside those that it shows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import takewhile

import numpy as np
from numpy.typing import NDArray

from harness.corpus import Document
from harness.corpus.labels import Concept, Integers

# (concept, a, b): it holds once character `a` has been read, and until character `b` is.
Span = tuple[str, int, int]

TEXT_CONCEPTS = (
    Concept("in brackets", "bracket"),
    Concept("in brackets, two or deeper", "bracket"),
    Concept("in (", "bracket"),  # the innermost one
    Concept("in [", "bracket"),
    Concept("in {", "bracket"),
    Concept("in double quotes", "quote"),
    Concept("capitalised word", "word"),
    Concept("word in capitals", "word"),
    Concept("number", "word"),
    Concept("URL", "word"),
    Concept("beginning of a line", "line"),
)
_OPENS = {")": "(", "]": "[", "}": "{"}
_BLANK_LINE = r"\n[ \t\r]*\n"
_BRACKET = re.compile(rf"[()\[\]{{}}]|{_BLANK_LINE}")
_QUOTE = re.compile(rf'["“”]|{_BLANK_LINE}')
_WORD = re.compile(r"[^\W_]+")
_URL = re.compile(r"\bhttps?://[^\s<>\"]*")
_LINE = re.compile(r"(?:\A|\n)[ \t]*")


@dataclass(frozen=True)
class Reader:
    """Labels that only some domain's texts have."""

    concepts: tuple[Concept, ...]
    spans: Callable[[str], Iterable[Span]]


class TextLabeller:
    """Labels of any text, one concept a domain, and `more` labels of the domains that it names."""

    from_beginning = False

    def __init__(self, domains: tuple[str, ...], more: Mapping[str, Reader] | None = None) -> None:
        self._more = {domain: reader for domain, reader in (more or {}).items() if domain in domains}
        found = [Concept(f"domain {domain}", "domain") for domain in domains]
        found += TEXT_CONCEPTS
        for reader in self._more.values():
            found += reader.concepts
        self.concepts = tuple(found)
        self._place = {concept.name: place for place, concept in enumerate(found)}

    def held(self, document: Document, ends: Integers) -> tuple[Integers, Integers]:
        spans = list(text_spans(document.text))
        if document.domain in self._more:
            spans += self._more[document.domain].spans(document.text)
        held = _covered(spans, self._place, last_characters(document.text, ends))
        held[self._place[f"domain {document.domain}"]] = True
        concept, token = np.nonzero(held)
        return token, concept


def last_characters(text: str, ends: Integers) -> Integers:
    """The last character that has been read whole after `ends` bytes of UTF-8; −1 before the first."""
    if text.isascii():
        return ends - 1
    codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    n_bytes = 1 + (codes >= 0x80).astype(np.int64) + (codes >= 0x800) + (codes >= 0x10000)
    return np.searchsorted(np.cumsum(n_bytes), ends, side="right") - 1


def _covered(spans: list[Span], place: Mapping[str, int], last: Integers) -> NDArray[np.bool_]:
    """Which concept holds on which token, `last` being the character that each token ends with. `[concepts, tokens]`"""
    width = len(last) + 1
    first_in = np.searchsorted(last, np.array([start for _, start, _ in spans], dtype=np.int64))
    first_out = np.searchsorted(last, np.array([stop for _, _, stop in spans], dtype=np.int64))
    row = np.array([place[name] for name, _, _ in spans], dtype=np.int64) * width
    size = len(place) * width
    steps = np.bincount(row + first_in, minlength=size) - np.bincount(row + first_out, minlength=size)
    return np.cumsum(steps.reshape(len(place), width), axis=1)[:, :-1] > 0


def text_spans(text: str) -> Iterator[Span]:
    yield from _brackets(text)
    yield from _quotes(text)
    yield from _words(text)
    for url in _URL.finditer(text):
        yield (
            "URL",
            url.start() + url[0].index("//") + 1,
            url.end(),
        )  # from the second stroke: before it, it may be none
    for line in _LINE.finditer(text):
        if line[0]:
            yield "beginning of a line", line.start(), line.end()


def _brackets(text: str) -> Iterator[Span]:
    opened: list[str] = []
    since = 0
    for found in _BRACKET.finditer(text):
        at = found.end() - 1  # of a blank line: where it is known to be one
        yield from _innermost(opened, since, at)
        since, character = at, found[0]
        if len(character) > 1:
            opened = []
        elif character not in _OPENS:
            opened.append(character)
        elif _OPENS[character] in opened:
            while opened.pop() != _OPENS[character]:
                pass
    yield from _innermost(opened, since, len(text))


def _innermost(opened: list[str], start: int, stop: int) -> Iterator[Span]:
    if opened:
        yield "in brackets", start, stop
        yield f"in {opened[-1]}", start, stop
    if len(opened) > 1:
        yield "in brackets, two or deeper", start, stop


def _quotes(text: str) -> Iterator[Span]:
    opened: int | None = None
    for found in _QUOTE.finditer(text):
        at, character = found.end() - 1, found[0]
        opens = character == "“" or (character == '"' and opened is None)
        if opened is not None and not opens:
            yield "in double quotes", opened, at
            opened = None
        elif opened is None and opens:
            opened = at
    if opened is not None:
        yield "in double quotes", opened, len(text)


def _words(text: str) -> Iterator[Span]:
    """A word is letters and digits. It counts as far as it has been read: `USe` is in capitals after two letters and no
    longer after the third, `3rd` is a number after one."""
    for found in _WORD.finditer(text):
        word, start = found[0], found.start()
        if word[0].isupper():
            yield "capitalised word", start, found.end()
            capitals = sum(1 for _ in takewhile(str.isupper, word))
            if capitals > 1:
                yield "word in capitals", start + 1, start + capitals
        elif word[0].isdigit():
            yield "number", start, start + sum(1 for _ in takewhile(str.isdigit, word))
