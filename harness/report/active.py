"""What a figure does as `max_experts` grows, in rows that differ in nothing else."""

from __future__ import annotations

from collections import Counter

import altair as alt

from harness.base.row_name import RowName
from harness.report.drawing import HEIGHT, WIDTH, Drawing, Record, data, interval, whiskers
from harness.report.style import COLOURS, GREY
from harness.tables.build import nothing_real
from harness.tables.cells import heading
from harness.tables.columns import any_figure
from harness.tables.table import Table


def points(table: Table, metric: str) -> list[Record]:
    """One a row, of lines with at least two: `line` names the rows that differ in `max_experts` alone."""
    found = []
    for row in table.rows:
        said = RowName.of(row.system)
        active = said.subject.settings.get("max_experts")
        if active is not None and (figure := row.metrics.get(metric)) is not None:
            line = str(said.without("max_experts"))
            found.append({"line": line, "x": active, **interval("y", figure.value, figure.low, figure.high)})
    many = Counter(one["line"] for one in found)
    return sorted((one for one in found if many[one["line"]] > 1), key=lambda one: (one["line"], one["x"]))


def draw(table: Table) -> list[Drawing]:
    """A figure for every headline figure that such rows have."""
    drawn = []
    for metric in table.headline:
        records = points(table, metric)
        if records and any_figure(table, metric) is not None:
            name = metric.split("/", 1)[1]
            title = f"{name.replace('_', ' ')} against active experts"
            says = "Rows of a line differ in nothing but how many experts are active. 95% intervals."
            chart = _chart(records, heading(table, metric), nothing_real(metric))
            drawn.append(Drawing(f"active_{name}", title[:1].upper() + title[1:], says, chart))
    return drawn


def _chart(records: list[Record], title: str, null: float | None) -> alt.LayerChart | alt.FacetChart:
    lines = list(dict.fromkeys(one["line"] for one in records))
    colour = alt.Color(
        "line:N", scale=alt.Scale(domain=lines, range=[COLOURS[i % len(COLOURS)] for i in range(len(lines))])
    )
    ticks = sorted({one["x"] for one in records})
    scale = alt.Scale(type="log", base=2, padding=14)
    x = alt.X("x:Q", title="active experts a token and layer, at most", scale=scale, axis=alt.Axis(values=ticks))
    y = alt.Y("y:Q", title=title, scale=alt.Scale(zero=False, padding=10))
    base = alt.Chart(data(records))
    tips = ["line:N", "x:Q", *(alt.Tooltip(f"{f}:Q", format=".4~g") for f in ("y", "y_low", "y_high"))]
    layers = [
        whiskers(base, "y", y, x, color=colour),
        base.mark_line(strokeWidth=1.5).encode(x=x, y=y, color=colour),
        base.mark_point(filled=True, size=80, opacity=1).encode(x=x, y=y, color=colour, tooltip=tips),
    ]
    if null is not None:
        layers.insert(0, alt.Chart(data([{"y": null}])).mark_rule(color=GREY, strokeDash=[5, 4]).encode(y="y:Q"))
    return alt.layer(*layers).properties(width=WIDTH, height=HEIGHT)
