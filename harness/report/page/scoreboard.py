"""The headline table as HTML: in each cell the words, and a dot with its interval on its column's axis."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import log10

from harness.tables.build import nothing_real
from harness.tables.headline import Column, Point, columns, front, grouped
from harness.tables.table import Row, Table
from harness.tables.warnings import AT_AN_END, CARRIED, SCORED

_ICONS = {"better": "▲", "worse": "▼", "unresolved": "◯", "above": "▲", "below": "▼", "not": "◯"}
_WIDTH = 92
_LOG = 100  # a column whose largest is so many times its least is drawn on a logarithmic axis


@dataclass(frozen=True)
class Cell:
    """text: without the verdict, which stands apart as a word with an icon. sort: what the column is sorted by."""

    text: str
    sort: float | None
    verdict: str
    dot: Dot | None


@dataclass(frozen=True)
class Dot:
    """Places on an axis of 0 to _WIDTH; zero: where the column's 0 is, or what a control would have, if on the axis."""

    at: float
    low: float
    high: float
    zero: float | None


@dataclass(frozen=True)
class Line:
    """doubts: why to be careful with the row, in a few words each."""

    system: str
    doubts: list[str]
    on_front: bool
    cells: list[Cell]


@dataclass(frozen=True)
class Scoreboard:
    headings: list[str]
    metrics: list[str]
    groups: list[tuple[str, list[Line]]]
    front_units: str | None
    width: int = _WIDTH


def scoreboard(table: Table) -> Scoreboard:
    """Rows by road, as in table.md."""
    shown = columns(table)
    units, on_front = front(table)
    axes = [_Axis.of([p for row in table.rows if (p := column.point(row)) is not None]) for column in shown]
    groups = [
        (
            group.title,
            [
                Line(row.system, doubts(row), row.system in on_front, list(_cells(row, shown, axes)))
                for row in group.rows
            ],
        )
        for group in grouped(table)
    ]
    return Scoreboard(
        [c.heading for c in shown],
        [c.metric for c in shown],
        groups,
        None if units is None else units.axis,
    )


def doubts(row: Row) -> list[str]:
    """What the warnings of the table say of this row."""
    if row.kind == "reference":
        return []
    found = ["one seed"] if len(row.seeds) == 1 else []
    found += ["not converged"] if any(note.startswith("not converged") for note in row.notes) else []
    found += ["chosen at an end of what was tried"] if any(note.startswith(AT_AN_END) for note in row.notes) else []
    found += ["not matched"] if row.unmatched is not None else []
    for name, bound, words in (
        ("loss/carried", CARRIED, "units carry {:.0%}"),
        ("autointerp/scored_share", SCORED, "{:.0%} scored"),
    ):
        if (figure := row.metrics.get(name)) is not None and figure.value < bound:
            found.append(words.format(figure.value))
    return found


@dataclass(frozen=True)
class _Axis:
    low: float
    high: float
    logarithmic: bool

    @staticmethod
    def of(points: Sequence[Point]) -> _Axis | None:
        """From the least end of an interval to the most."""
        ends = [end for p in points for end in (p.value, p.low, p.high) if end is not None]
        if not ends or min(ends) == max(ends):
            return None
        least = min(p.value for p in points)
        logarithmic = least > 0 and max(p.value for p in points) > _LOG * least
        if logarithmic:
            ends = [max(end, least / 2) for end in ends]
        return _Axis(min(ends), max(ends), logarithmic)

    def place(self, value: float) -> float:
        low, high = self.low, self.high
        if self.logarithmic:
            low, high, value = log10(low), log10(high), log10(max(value, low))
        return round(4 + (_WIDTH - 8) * min(1.0, max(0.0, (value - low) / (high - low))), 1)


def _cells(row: Row, shown: Sequence[Column], axes: Sequence[_Axis | None]) -> Iterator[Cell]:
    for column, axis in zip(shown, axes, strict=True):
        point, text = column.point(row), column.cell(row)
        if point is None:
            yield Cell(text, None, "", None)
            continue
        verdict = point.verdict
        icon = next((icon for word, icon in _ICONS.items() if verdict.startswith(word)), "")
        dot = None
        if axis is not None:
            ends = (point.value if point.low is None else point.low, point.value if point.high is None else point.high)
            nothing = (nothing_real(column.metric) or 0.0) if point.compared_with is None else 0.0
            crosses = axis.low < nothing < axis.high and not axis.logarithmic
            dot = Dot(
                axis.place(point.value),
                axis.place(ends[0]),
                axis.place(ends[1]),
                axis.place(nothing) if crosses else None,
            )
        yield Cell(text.removesuffix(verdict).rstrip(), point.value, f"{icon} {verdict}".strip(), dot)
