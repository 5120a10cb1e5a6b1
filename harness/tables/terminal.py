"""A table in the terminal: what it says, the headline, then the families."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable
from rich.text import Text

from harness.tables.cells import figure_cell, has, heading, reasons
from harness.tables.columns import families, main
from harness.tables.headline import columns as headline_columns
from harness.tables.headline import front, grouped
from harness.tables.markdown import READ_ME
from harness.tables.table import Table
from harness.tables.verdict import verdict
from harness.tables.warnings import warnings


def render(table: Table, console: Console) -> None:
    """Prints the table; a family too wide for the terminal is turned on its side, or cut where that is too wide too."""
    console.print(f"[bold]{escape(table.comparison)}[/bold]  {escape(table.question)}", highlight=False)
    for what, sentences in (("verdict", verdict(table)), ("warning", warnings(table))):
        for sentence in sentences:
            console.print(f"  [bold]{what}[/bold]  {escape(sentence)}", highlight=False)
    console.print(escape(READ_ME), style="dim", highlight=False)
    for part in _cut(_headline(table), console.width):
        _print_columns(part, "headline (◆ no other row has both a lower loss and fewer units)", console)
    for family, metrics in families(table):
        rows = [r for r in table.rows if has(r, metrics)]
        shown = main(family, metrics, table.headline)
        upright = [
            ["system", *(r.system for r in rows)],
            *([heading(table, m), *(figure_cell(r, m) for r in rows)] for m in shown),
        ]  # columns
        on_side = [list(column) for column in zip(*upright, strict=True)]
        on_side[0][0] = "metric"
        columns = upright if _width(upright) <= console.width or _width(on_side) > console.width else on_side
        for part in _cut(columns, console.width):
            _print_columns(part, family, console)
        for reason in reasons(rows, shown):
            console.print(f"  {escape(reason)}", style="dim", highlight=False)
    for row in table.rows:
        for note in row.notes:
            console.print(f"  {escape(row.system)}: {escape(note)}", style="dim", highlight=False)


def _headline(table: Table) -> list[list[str]]:
    """Columns; rows in the order of their groups."""
    shown, on_front = headline_columns(table), front(table)[1]
    if not shown:
        return []
    rows = [(group, row) for group in grouped(table) for row in group.rows]
    return [
        ["system", *(f"{row.system}{' ◆' if row.system in on_front else ''}" for _, row in rows)],
        ["road", *(group.title.split(" (")[0].split(":")[0] for group, _ in rows)],
        *([column.heading, *(column.cell(row) for _, row in rows)] for column in shown),
    ]


def _lines(text: str) -> list[str]:
    """A figure keeps its value and its interval on one line each."""
    value, bracket, ends = text.partition(" [")
    return [value, f"[{ends}"] if bracket else [value]


def _column_width(column: Sequence[str]) -> int:
    """Headings wrap at spaces, figures do not. 3: what rich puts between columns."""
    words = column[0].split(" ")
    return max(1, *map(len, words), *(len(line) for text in column[1:] for line in _lines(text))) + 3


def _width(columns: Sequence[Sequence[str]]) -> int:
    return sum(_column_width(column) for column in columns) + 1


def _cut(columns: list[list[str]], width: int) -> list[list[list[str]]]:
    """Parts that fit, each beginning with the first column; no columns, no parts."""
    parts, part = [], columns[:1]
    for column in columns[1:]:
        if len(part) > 1 and _width([*part, column]) > width:
            parts.append(part)
            part = columns[:1]
        part.append(column)
    return [*parts, part] if part else []


def _print_columns(columns: Sequence[Sequence[str]], title: str, console: Console) -> None:
    grid = RichTable(title=Text(title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    whole = sum(max(len(text) for text in column) + 3 for column in columns) + 1 <= console.width
    for i, column in enumerate(columns):
        width = None if whole else _column_width(column) - 3  # left to itself rich crops figures to spare headings
        grid.add_column(Text(column[0]), justify="left" if i == 0 else "right", width=width)
    for line in zip(*(column[1:] for column in columns), strict=True):
        grid.add_row(*(Text(text if whole else "\n".join(_lines(text))) for text in line))
    console.print(grid)
