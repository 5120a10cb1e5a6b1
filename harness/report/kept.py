"""Loss against how many units write, a line a system."""

from __future__ import annotations

import altair as alt

from harness.report.drawing import HEIGHT, WIDTH, Drawing, Record, data, record, systems, tooltip
from harness.report.style import marks
from harness.tables.roads import is_control
from harness.tables.table import Table

PREFIX = "kept/bits_per_byte_k"


def points(table: Table) -> list[Record]:
    """One for every row and k. Untrained rows are left out: they would set the scale."""
    looks = marks(table)
    return [
        record(looks, row, {"y": name}, x=int(name.removeprefix(PREFIX)))
        for row in table.rows
        for name in sorted(row.metrics, key=lambda name: (len(name), name))
        if name.startswith(PREFIX) and not is_control(row)
    ]


def draw(table: Table) -> Drawing | None:
    """A panel a road. Unpaired intervals would hide what the lines say of each other; the tooltips have them."""
    records = points(table)
    if not records:
        return None
    of = systems(table, records)
    ticks = sorted({one["x"] for one in records})
    title = "k, a token and layer"
    x = alt.X("x:Q", title=title, scale=alt.Scale(type="log", base=2), axis=alt.Axis(values=ticks, labelOverlap=True))
    y = alt.Y("y:Q", title="bits per byte", scale=alt.Scale(zero=False))
    base = alt.Chart()
    lines = base.mark_line(strokeWidth=1.6).encode(x=x, y=y, color=of["color"], detail="system:N")
    dots = base.mark_point(filled=True, size=50, opacity=1).encode(x=x, y=y, tooltip=[*tooltip("y"), "x:Q"], **of)
    roads = list(dict.fromkeys(one["road"] for one in records))
    panel = alt.layer(lines, dots).properties(width=(WIDTH + 160) / len(roads), height=HEIGHT - 60)
    chart = panel.facet(alt.Facet("road:N", sort=roads, title=None), data=data(records))
    says = "Further left and lower: it leans on fewer units. A row that is flat needs none of the others."
    return Drawing("kept", "Loss when each token keeps its k strongest units", says, chart)
