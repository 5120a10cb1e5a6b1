"""What holds in Python source, as `tokenize` would say it: string, comment, name, keyword, number, depth of blocks.

Documents are excerpts, over many of which `tokenize` stumbles, and it does so otherwise in every version of Python. So
this is a scanner of its own that never fails. On a file that `tokenize` reads to its end, both say the same (tested).

- A token belongs to what its last character belongs to: the closing quote is in the string.
- What looks ahead: a name, keyword or number is told by all of its characters; a string in single quotes is one if it
  is closed before the line ends, else its quote is passed over. Comments, strings in triple quotes and depth are
  causal: depth changes with the first character of the line that changes it.
- An f-string is a string throughout.
- An excerpt that begins inside a string is read as code, until a quote turns this round.
- Depth counts blocks. An excerpt's first line, where it is indented, is taken to lie in a block for every four columns.
  A line that goes back to a depth that no line had is in a block of its own.
- A bracket that is not closed continues its line to the end, as for `tokenize`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from keyword import iskeyword

from harness.corpus.labels import Concept
from harness.corpus.text_labels import Reader, Span

DEEPEST = 4
_DEPTHS = (*(f"indent {depth}" for depth in range(1, DEEPEST)), f"indent {DEEPEST} or more")
_CONCEPTS = (
    *(Concept(f"Python {name}", "python") for name in ("string", "comment", "name", "keyword", "number")),
    *(Concept(name, "indent") for name in _DEPTHS),
)
_COLUMNS = 4  # of a block, where an excerpt does not show it
_DIGITS = "[0-9](?:_?[0-9])*"
_SCANNER = re.compile(
    rf"""
      (?P<comment> \#[^\n]* )
    | (?P<string> (?: [rR][bBfFtT]? | [bBfFtT][rR]? | [uU] )?
          (?: \"\"\" (?: [^\\] | \\. )*? (?: \"\"\" | \\? \Z )
            | ''' (?: [^\\] | \\. )*? (?: ''' | \\? \Z )
            | " (?: [^"\\\n] | \\. )* "
            | ' (?: [^'\\\n] | \\. )* ' ) )
    | (?P<number> 0[xX](?:_?[0-9a-fA-F])+ | 0[bB](?:_?[01])+ | 0[oO](?:_?[0-7])+
        | (?: {_DIGITS}\.?(?:{_DIGITS})? | \.{_DIGITS} ) (?: [eE][+-]?{_DIGITS} )? [jJ]? )
    | (?P<name> [^\W\d]\w* )
    | (?P<opening> [(\[{{] )
    | (?P<closing> [)\]}}] )
    | (?P<continued> \\\r?\n )
    | (?P<newline> \n )
    | (?P<other> \S )
    """,
    re.VERBOSE | re.DOTALL,
)
_MARKED = ("string", "comment", "number")


def python_spans(text: str) -> Iterator[Span]:
    stack: list[int] = []  # columns of the blocks that the present line lies in
    opened, fresh = 0, True  # brackets; whether the next thing read begins a logical line
    line_start = since = 0
    for found in _SCANNER.finditer(text):
        kind, start, stop = found.lastgroup, found.start(), found.end()
        if kind == "newline":
            fresh = fresh or not opened
            line_start = stop
            continue
        if fresh and kind not in ("comment", "continued"):
            yield from _indented(stack, since, start)
            fresh, since = False, start
            _enter(stack, len(text[line_start:start].expandtabs(8)))
        if kind == "name":
            yield "Python keyword" if iskeyword(found[0]) else "Python name", start, stop
        elif kind in _MARKED:
            yield f"Python {kind}", start, stop
        elif kind == "opening":
            opened += 1
        elif kind == "closing":
            opened = max(0, opened - 1)
    yield from _indented(stack, since, len(text))


def _enter(stack: list[int], column: int) -> None:
    """`stack` as it is for a line that begins in this column."""
    if not stack:
        stack += [*range(0, column, _COLUMNS), column]
        return
    while column < stack[-1]:
        stack.pop()
    if column > stack[-1]:
        stack.append(column)


def _indented(stack: list[int], start: int, stop: int) -> Iterator[Span]:
    if len(stack) > 1:
        yield _DEPTHS[min(len(stack) - 1, DEEPEST) - 1], start, stop


PYTHON = Reader(_CONCEPTS, python_spans)
