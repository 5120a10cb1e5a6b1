"""The first figure: what a row loses against the row it is compared with, and how many units a token needs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import altair as alt

from harness.report.drawing import HEIGHT, WIDTH, Drawing, Record, data, interval, record, systems, tooltip, whiskers
from harness.report.style import GREY, marks, rows_with, sweep
from harness.tables.cells import heading
from harness.tables.counts import of_table
from harness.tables.roads import road
from harness.tables.splice import SPLICED
from harness.tables.table import Row, Table

COMPETE = ("dense", "post-hoc", "built-in")


@dataclass(frozen=True)
class _Axes:
    units: str
    y: str
    null: float | None


def draw(table: Table) -> Drawing | None:
    """Filled: the row's whole budget. Hollow: its dictionaries come on top of it. A line joins the rows of a sweep.
    Controls and rows of another budget are left out: they would set the scale."""
    units = of_table(table)
    if units is None:
        return None
    differences = {d.a: d for d in table.differences if d.metric == SPLICED}
    bases = {d.b for d in differences.values()}
    rows = [row for row in rows_with(table, units.metric, SPLICED) if road(row) in COMPETE]
    records, looks = [], marks(table)
    for row in rows:
        one = record(
            looks,
            row,
            {"x": units.metric, "absolute": SPLICED},
            accounting=row.accounting or "",
            curve=sweep(row.system),
        )
        if (d := differences.get(row.system)) is not None:
            records.append(one | interval("y", d.value, d.low, d.high))
        elif row.system in bases:
            records.append(one | interval("y", 0.0, 0.0, 0.0))
        elif not differences:
            figure = row.metrics[SPLICED]
            records.append(one | interval("y", figure.value, figure.low, figure.high))
    if len(records) < 2:
        return None
    against = f", minus {' or '.join(sorted(bases))}" if differences else ""
    axes = _Axes(units.axis, heading(table, SPLICED).rstrip(" ↓") + against, 0.0 if differences else None)
    how = "paired by document and seed; 95% intervals" if differences else "95% intervals"
    return Drawing(
        "difference",
        "What it loses, and how many units a token needs",
        f"Down and left is better ({how}).{_hollow(rows)}",
        _chart(table, records, axes),
    )


def _hollow(rows: list[Row]) -> str:
    if not any(row.accounting == "same subject" for row in rows):
        return ""
    return " Filled: equal total budget. Hollow: dictionaries on top of the same subject."


def _chart(table: Table, records: list[Record], axes: _Axes) -> alt.LayerChart | alt.FacetChart:
    of = systems(table, records)
    x = alt.X("x:Q", title=axes.units, scale=alt.Scale(type="log", nice=False, padding=24), axis=alt.Axis(format="~s"))
    y = alt.Y("y:Q", title=axes.y, scale=alt.Scale(zero=False, padding=12))
    base = alt.Chart(data(records))
    layers = [
        whiskers(base, "y", y, x, color=of["color"]),
        whiskers(base, "x", x, y, color=of["color"]),
    ]
    swept = Counter(one["curve"] for one in records)
    joined = [one for one in records if swept[one["curve"]] > 1]
    if joined:
        line = alt.Chart(data(joined)).mark_line(strokeWidth=1.2, opacity=0.7)
        layers.append(line.encode(x=x, y=y, detail="curve:N", color=alt.value(GREY), order="x:Q"))
    for hollow in (False, True):
        some = [one for one in records if (one["accounting"] == "same subject") == hollow]
        if some:
            dots = alt.Chart(data(some)).mark_point(
                filled=not hollow, fill="white" if hollow else alt.Undefined, size=110, opacity=1
            )
            layers.append(dots.encode(x=x, y=y, tooltip=[*tooltip("y", "x"), "accounting:N"], **of))
    if axes.null is not None:
        rule = alt.Chart(data([{"y": axes.null}])).mark_rule(color=GREY, strokeDash=[5, 4])
        layers.insert(0, rule.encode(y="y:Q"))
    return alt.layer(*layers).properties(width=WIDTH, height=HEIGHT)
