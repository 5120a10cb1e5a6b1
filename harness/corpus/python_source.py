"""Python files taken apart: code without docstrings, docstrings without references, references alone."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

_HEADING = r"[ \t]*[-=~]{4,}[ \t]*"
_REFERENCES = re.compile(rf"^[ \t]*References?[ \t]*\n{_HEADING}\n", re.MULTILINE)
_NEXT_SECTION = re.compile(rf"^[ \t]*\S.*\n{_HEADING}$|^[ \t]*>>> |^[ \t]*\.\. \w+::", re.MULTILINE)
_END_OF_STRING = re.compile(r'"""|\'\'\'')
_GONE = "\0"  # no line of Python can be this


@dataclass(frozen=True)
class TakenApart:
    code: str
    docstrings: list[str]


def take_apart(raw: bytes) -> TakenApart:
    """Code with its comments but no docstrings, and the docstrings (dedented) without their reference sections.

    A body that held nothing but a docstring gets `pass`, so that the code still parses. Raises SyntaxError or
    UnicodeDecodeError for what is not Python 3 in UTF-8.
    """
    text = raw.decode("utf-8-sig").replace("\r\n", "\n").replace("\f", " ")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # invalid escapes in other people's strings
        tree = ast.parse(text)
    lines = text.split("\n")
    docstrings = []
    for node in _documented(tree):
        if not node.body:
            continue
        first = node.body[0]
        if not (isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)):
            continue
        value, end = first.value.value, first.end_lineno or first.lineno
        if not isinstance(value, str):
            continue
        docstrings.append(without_references(inspect.cleandoc(value)))
        before = lines[first.lineno - 1].encode()[: first.col_offset].strip()
        after = lines[end - 1].encode()[first.end_col_offset :].strip()
        if not before and (not after or after.startswith(b"#")):  # else it shares a line with code
            empty = [""] * (end - first.lineno + 1)
            if len(node.body) == 1 and not isinstance(node, ast.Module):
                empty[0] = " " * first.col_offset + "pass"
            lines[first.lineno - 1 : end] = [line or _GONE for line in empty]
    code = "\n".join(line for line in lines if line != _GONE)
    return TakenApart(re.sub(r"\n{4,}", "\n\n\n", code).strip("\n"), docstrings)


def _documented(node: ast.AST) -> Iterator[ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    """What can have a docstring. Looks into statements only: `ast.walk` visits every expression and takes longer than
    the parser."""
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        yield node
    for block in ("body", "orelse", "finalbody", "handlers", "cases"):
        for child in getattr(node, block, None) or ():
            if isinstance(child, ast.stmt | ast.ExceptHandler | ast.match_case):
                yield from _documented(child)


def without_references(docstring: str) -> str:
    """A docstring without its numpydoc `References` section: those are another domain."""
    start = _REFERENCES.search(docstring)
    if start is None:
        return docstring
    end = _NEXT_SECTION.search(docstring, start.end())
    return (docstring[: start.start()] + (docstring[end.start() :] if end else "")).rstrip()


def references(raw: bytes) -> list[str]:
    """The reference sections of a file's docstrings, each dedented: up to the next section, example or closing quotes.

    Read off the text of the file, not its syntax tree, which would take twenty times as long.
    """
    text = raw.decode("utf-8-sig").replace("\r\n", "\n")
    found = []
    for start in _REFERENCES.finditer(text):
        quotes = _END_OF_STRING.search(text, start.end())
        section = text[start.end() : quotes.start() if quotes else len(text)]
        end = _NEXT_SECTION.search(section)
        section = section[: end.start()] if end else section
        found.append(textwrap.dedent(section).strip("\n").rstrip())
    return found
