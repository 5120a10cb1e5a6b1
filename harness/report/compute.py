"""Loss against training compute, where rows differ in it."""

from __future__ import annotations

import altair as alt

from harness.report.drawing import HEIGHT, WIDTH, Drawing, data, record, systems, tooltip
from harness.report.style import marks, rows_with
from harness.tables.splice import SPLICED
from harness.tables.table import Table

FLOPS = "cost/training_flops"
VARIES = 1.2  # the most over the least: what is matched needs no axis


def draw(table: Table) -> Drawing | None:
    rows = rows_with(table, FLOPS, SPLICED)
    spent = [row.metrics[FLOPS].value for row in rows]
    if len(rows) < 2 or min(spent) <= 0 or max(spent) / min(spent) < VARIES:
        return None
    looks = marks(table)
    records = [record(looks, row, {"x": FLOPS, "y": SPLICED}) for row in rows]
    of = systems(table, records)
    x = alt.X(
        "x:Q",
        title="training compute (FLOP)",
        scale=alt.Scale(type="log", padding=20),
        axis=alt.Axis(format=".1e", tickCount=4),
    )
    y = alt.Y("y:Q", title="bits per byte, running through its units", scale=alt.Scale(zero=False, padding=12))
    base = alt.Chart(data(records))
    dots = base.mark_point(filled=True, size=100, opacity=1).encode(x=x, y=y, tooltip=tooltip("x", "y"), **of)
    chart = dots.properties(width=WIDTH, height=HEIGHT)
    return Drawing(
        "compute",
        "Loss against training compute",
        "Without intervals: rows are compared with each other in the first figure, paired.",
        chart,
    )
