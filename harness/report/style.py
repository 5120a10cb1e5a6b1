"""How systems look: one colour and one marker each, the same in every figure, on the page and in MLflow.

The marker's family says the road: round is dense, square is post-hoc, a triangle is built-in, a cross is neither.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.base.row_name import RowName
from harness.tables.roads import Road, road
from harness.tables.table import Row, Table

# Each has a contrast of at least 4.5:1 with white (WCAG AA for text), and neighbours differ in hue.
COLOURS = (
    "#0b5fa5", "#b5460f", "#00734d", "#9b2f7e", "#7a5c00", "#5b45b0",
    "#b3261e", "#006b80", "#7a3e12", "#3d6b00", "#c2185b", "#4a5568",
)  # fmt: skip
GREY = "#666666"
SHAPES: dict[Road, tuple[str, ...]] = {
    "dense": ("circle",),
    "post-hoc": ("square", "diamond"),
    "built-in": ("triangle-up", "triangle-down", "triangle-right", "triangle-left"),
    "apart": ("cross",),
    "reference": ("stroke",),
}
# Where lines carry no markers, what the marker would say.
DASHES: dict[str, list[int]] = {
    "circle": [1, 0], "square": [7, 3], "diamond": [2, 2], "triangle-up": [1, 0], "triangle-down": [6, 2],
    "triangle-right": [4, 2, 1, 2], "triangle-left": [1, 2], "cross": [3, 3],
}  # fmt: skip
LABELLED = 16  # with more rows than this, those that differ in brackets alone share a mark, and the legend names these


@dataclass(frozen=True)
class Mark:
    """label: what the legend calls it: the system, or of many rows what they share."""

    label: str
    colour: str
    shape: str


def marks(table: Table) -> dict[str, Mark]:
    """The mark of every system but references. Within a road the next round of colours has the next shape."""
    rows = [row for row in table.rows if row.kind != "reference"]
    labels = {row.system: _family(row.system) if len(rows) > LABELLED else row.system for row in rows}
    places = {label: place for place, label in enumerate(dict.fromkeys(labels.values()))}
    before: Counter[Road] = Counter()
    shapes: dict[str, str] = {}
    for row in rows:
        label = labels[row.system]
        if label not in shapes:
            family = SHAPES[road(row)]
            place = before[road(row)]
            shapes[label] = family[(place + place // len(COLOURS)) % len(family)]
            before[road(row)] += 1
    return {
        system: Mark(label, COLOURS[places[label] % len(COLOURS)], shapes[label]) for system, label in labels.items()
    }


def sweep(system: str) -> str:
    """What rows of a sweep share: the name without how many units are active or how many there are."""
    return str(RowName.of(system).without("k", "n_latents", "max_experts"))


def _family(system: str) -> str:
    """A system's name without what stands in brackets last."""
    said = RowName.of(system)
    return said.subject.name if said.dictionary is None else f"{said.subject}+{said.dictionary.name}"


def rows_with(table: Table, *metrics: str) -> list[Row]:
    """Systems, no references, that have all of these figures."""
    return [row for row in table.rows if row.kind != "reference" and all(name in row.metrics for name in metrics)]


def scales(table: Table, systems: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Domain and range of colours, and of shapes, for the legend of these systems."""
    found = marks(table)
    shown = list(dict.fromkeys(found[system] for system in systems))
    labels = [mark.label for mark in shown]
    return (
        {"domain": labels, "range": [mark.colour for mark in shown]},
        {"domain": labels, "range": [mark.shape for mark in shown]},
    )


CONFIG: dict[str, Any] = {
    "background": "white",
    "font": "Liberation Sans, Arial, sans-serif",
    "view": {"stroke": None},
    "axis": {"labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal", "gridColor": "#e4e4e4",
             "labelColor": "#222222", "labelOverlap": True, "titleColor": "#222222",
             "labelLimit": 420, "domainColor": "#888888"},
    "axisX": {"grid": False},
    "legend": {"labelFontSize": 12, "titleFontSize": 12, "labelLimit": 420, "symbolSize": 90, "title": None},
    "header": {"labelFontSize": 12, "titleFontSize": 12, "labelLimit": 420},
    "title": {"anchor": "start", "fontSize": 14, "fontWeight": "bold", "subtitleFontSize": 12,
              "subtitleColor": "#444444", "offset": 12},
}  # fmt: skip
