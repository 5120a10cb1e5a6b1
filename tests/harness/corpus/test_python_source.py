import ast

import pytest

from harness.corpus.python_source import references, take_apart, without_references

SOURCE = '''# A comment.
"""Module docstring."""
import os


class A:
    """Only this."""  # noqa


def f(x):
    """Does it.

    Notes
    -----
    A note.

    References
    ----------
    .. [1] Someone (1999), "A title",
       A journal.

    Examples
    --------
    >>> f(1)
    """
    if x:
        def inner():
            "Inner."
            return """not a docstring"""
    return os; "neither"


def g(): "on one line"
'''


def test_code_keeps_comments_and_strings_and_loses_docstrings():
    code = take_apart(SOURCE.encode()).code
    ast.parse(code)
    assert "# A comment." in code
    assert "not a docstring" in code
    for gone in ("Module docstring", "Only this", "Does it", "Inner."):
        assert gone not in code
    assert "class A:\n    pass" in code
    assert 'def g(): "on one line"' in code


def test_docstrings_are_dedented_and_lose_their_references():
    docstrings = take_apart(SOURCE.encode()).docstrings
    assert docstrings[:2] == ["Module docstring.", "Only this."]
    assert set(docstrings[3:]) == {"Inner.", "on one line"}
    assert "A note." in docstrings[2]
    assert "Examples\n--------" in docstrings[2]
    assert "Someone" not in docstrings[2]


def test_references_are_what_docstrings_lose():
    assert references(SOURCE.encode()) == ['.. [1] Someone (1999), "A title",\n   A journal.']
    last = '"""A.\n\nReferences\n----------\n.. [1] B.\n"""\nx = 1\n'
    assert references(last.encode()) == [".. [1] B."]
    assert without_references("A.\n\nReferences\n----------\n.. [1] B.") == "A."


def test_what_is_not_python_raises():
    with pytest.raises(SyntaxError):
        take_apart(b"print 'python 2'")
    with pytest.raises(UnicodeDecodeError):
        take_apart(b"# \xe9")
