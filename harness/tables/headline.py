"""The short table that is read first: every row, at most eight figures, grouped by road.

Its columns: the loss against the row that it is compared with, what a dictionary costs its model, how many units a
token needs, how many are dead, the figures that the experiment asks about, and the training compute.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from harness.tables.cells import cell, difference, figure_cell, heading
from harness.tables.columns import any_figure
from harness.tables.counts import NAMES, Count, of_table
from harness.tables.roads import Group, groups, road
from harness.tables.splice import COST, NATIVE, SPLICED
from harness.tables.table import Row, Table

MOST = 8
_ALWAYS = (COST, *NAMES[:2], "usage/dead")
_LAST = "cost/training_flops"


@dataclass(frozen=True)
class Point:
    """What a cell says, as numbers. compared_with: of a difference. verdict: a word, where there is one."""

    value: float
    low: float | None
    high: float | None
    compared_with: str | None = None
    verdict: str = ""


@dataclass(frozen=True)
class Column:
    """metric: what its figures are of. cell: the words; point: the numbers behind them, None where there is none."""

    heading: str
    metric: str
    cell: Callable[[Row], str]
    point: Callable[[Row], Point | None]


def columns(table: Table) -> list[Column]:
    """Loss first, then what every comparison shows, then the experiment's own figures, compute last."""
    asked = [name for name in table.headline if name != SPLICED]
    room = MOST - 2 - len(asked)
    always = [name for name in _ALWAYS if name not in asked][: max(0, room)]
    wanted = [name for name in (*always, *asked, _LAST) if any_figure(table, name) is not None]
    return [*_loss(table), *(_figure(table, name) for name in wanted)][:MOST]


def _loss(table: Table) -> list[Column]:
    if any_figure(table, SPLICED) is None:
        return []
    found = {d.a: d for d in table.differences if d.metric == SPLICED}
    if not found:
        return [_figure(table, SPLICED)]
    others = dict.fromkeys(d.b for d in found.values())

    def of(row: Row) -> str:
        if row.system not in found:
            if row.kind == "reference":  # it has no units to run through
                return f"{figure_cell(row, NATIVE)} (no difference)"
            return f"{figure_cell(row, SPLICED)}{' (itself)' if row.system in others else ''}"
        apart = f" from {found[row.system].b}" if len(others) > 1 else ""
        return difference(found[row.system]) + apart

    def point(row: Row) -> Point | None:
        if (d := found.get(row.system)) is not None:
            return Point(d.value, d.low, d.high, d.b, d.verdict or "")
        return Point(0.0, None, None, row.system) if row.system in others else None

    against = next(iter(others)) if len(others) == 1 else "the row it is compared with"
    return [Column(f"{heading(table, SPLICED)}, minus {against}", SPLICED, of, point)]


def _figure(table: Table, name: str) -> Column:
    verdicts = {d.a: d.verdict for d in table.differences if d.metric == name and d.verdict is not None}

    def of(row: Row) -> str:
        found = point(row)
        if found is None:
            return ""
        return cell(found.value, found.low, found.high) + (f" {found.verdict}" if found.verdict else "")

    def point(row: Row) -> Point | None:
        figure = row.metrics.get(name)
        if figure is None:
            return None
        says = []
        if figure.against_control is not None:
            told = figure.against_control != "unresolved"
            says.append(f"{figure.against_control} its control" if told else "not told from its control")
        if row.system in verdicts:
            says.append(verdicts[row.system] or "")
        return Point(figure.value, figure.low, figure.high, None, ", ".join(says))

    return Column(heading(table, name), name, of, point)


def grouped(table: Table) -> list[Group]:
    """Groups of rows as tables have them, in each the lowest loss first; rows without one last."""
    return [Group(group.title, tuple(sorted(group.rows, key=_loss_of))) for group in groups(table.rows)]


def _loss_of(row: Row) -> float:
    figure = row.metrics.get(SPLICED) or row.metrics.get("loss/bits_per_byte")
    return float("inf") if figure is None else figure.value


def front(table: Table) -> tuple[Count | None, set[str]]:
    """What counts units, and the systems that no other beats in both it and the loss. Read among rows that
    compete: no references or controls, and none that got another budget, a dictionary on top of it among them."""
    units = of_table(table)
    if units is None:
        return None, set()
    points = [
        (row.system, row.metrics[SPLICED].value, row.metrics[units.metric].value)
        for row in table.rows
        if row.unmatched is None
        and road(row) not in ("apart", "reference")
        and {SPLICED, units.metric} <= row.metrics.keys()
    ]
    return units, {
        system
        for system, loss, count in points
        if not any(
            other_loss <= loss and other_count <= count and (other_loss, other_count) != (loss, count)
            for _, other_loss, other_count in points
        )
    }
