import io
import keyword
import re
import tokenize
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.corpus.python_labels import PYTHON, python_spans

SKIPPED = {tokenize.NL, tokenize.NEWLINE, tokenize.COMMENT, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
F_STRINGS = [(getattr(tokenize, f"{a}STRING_START", None), getattr(tokenize, f"{a}STRING_END", None)) for a in "FT"]
STARTS, STOPS = {a for a, _ in F_STRINGS if a}, {b for _, b in F_STRINGS if b}


def files():
    found = []
    for package in ("networkx", "sympy", "sklearn"):
        folder = Path(find_spec(package).origin).parent
        found += sorted(folder.rglob("*.py"))[::97][:12]
    return found


def by_character(text, spans):
    """Name of what holds after every character, but for depth; depth apart."""
    kinds, depths = np.full(len(text), "", dtype=object), np.zeros(len(text), dtype=int)
    for name, start, stop in spans:
        if name.startswith("indent"):
            depths[start:stop] = int(name.split()[1])
        else:
            assert (kinds[start:stop] == "").all()
            kinds[start:stop] = name.removeprefix("Python ")
    return kinds, depths


def tokenized(text):
    """The same from `tokenize`. What it takes apart inside an f-string is the string's."""
    line_starts = [0, *(end.end() for end in re.finditer("\n", text))]
    kinds, depths = np.full(len(text), "", dtype=object), np.zeros(len(text), dtype=int)
    depth, since, before, string = 0, 0, 0, []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        start, stop = (line_starts[row - 1] + column for row, column in (token.start, token.end))
        depth += (token.type == tokenize.INDENT) - (token.type == tokenize.DEDENT)
        if token.type not in SKIPPED and depth != before:
            depths[since:start] = min(before, 4)
            since, before = start, depth
        if token.type in STARTS:
            string.append(start)
        elif token.type in STOPS:
            kinds[string.pop() : stop] = "string"
        elif not string:
            kind = {tokenize.STRING: "string", tokenize.COMMENT: "comment", tokenize.NUMBER: "number"}.get(
                token.type, ""
            )
            if token.type == tokenize.NAME:
                kind = "keyword" if keyword.iskeyword(token.string) else "name"
            kinds[start:stop] = kind or kinds[start:stop]
    depths[since:] = min(before, 4)
    return kinds, depths


def assert_equal(text):
    for found, wanted in zip(by_character(text, python_spans(text)), tokenized(text), strict=True):
        wrong = np.flatnonzero(found != wanted)
        assert not len(wrong), (text[max(0, wrong[0] - 80) : wrong[0] + 20], found[wrong[0]], wanted[wrong[0]])


@pytest.mark.parametrize("path", files(), ids=lambda path: path.name)
def test_a_file_reads_as_tokenize_reads_it(path):
    assert_equal(path.read_text())


@pytest.mark.parametrize(
    "text",
    [
        "x = 0xFF + 1_000.5e-3j + .5 + 1. + 0b1 + 0o7 if y else 1if z else 2\n",
        'a = rb"x\\"y" + f\'it{a}s\' + u"" + """a "b" \\""" c""" + \'\'\'\n # no comment\'\'\' # one\n',
        "if a:\n\tif b:\n        c\n# less\nd = (1,\n  2)\n\n\nwhile e: \\\n   f\n",
        "class A:\n  def b():\n      if c:\n            if d:\n                  if e:\n                    f\n  g\n",
        "match x:\n    case _: nonlocal_, été = None, True\n",
        "x = 'a\\\nb' # continued\n",
    ],
)
def test_odd_corners_read_as_tokenize_reads_them(text):
    assert_equal(text)


def test_an_excerpt_that_begins_in_a_block_has_the_depth_of_its_columns():
    text = "        return x\n\n    def f():\n        y\n    z\n  w\n"
    _, depths = by_character(text, python_spans(text))
    assert [depths[text.index(c)] for c in "rdyzw"] == [2, 1, 2, 1, 1]
    assert depths[text.index("d") - 1] == 2  # nobody knows the line's depth before its first character


def test_what_is_not_closed_reads_to_its_end():
    kinds, _ = by_character(text := 'x = """so\nit goes', python_spans(text))
    assert (kinds[4:] == "string").all()
    kinds, _ = by_character(text := "don't stop\nhere", python_spans(text))
    assert kinds.tolist()[:5] == ["name", "name", "name", "", "name"]  # the quote is passed over
    assert kinds[text.index("h")] == "name"


def test_a_bracket_that_an_excerpt_opened_before_it_began_changes_no_depth():
    _, depths = by_character(text := "x)\nif y:\n  z", python_spans(text))
    assert [depths[text.index(c)] for c in "xyz"] == [0, 0, 1]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([*"([{}])\"'\\#\n \tafx09.é$?", '"""', "'''", "if ", "    "]), max_size=40))
def test_no_text_makes_it_stumble(pieces):
    text = "".join(pieces)
    names = {concept.name for concept in PYTHON.concepts}
    spans = list(python_spans(text))
    assert all(name in names and 0 <= start <= stop <= len(text) for name, start, stop in spans)
    by_character(text, spans)  # nothing is two things
