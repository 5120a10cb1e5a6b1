"""How well units tell the concepts that a corpus knows: beside what has nothing to tell, by kind, and by cost."""

from __future__ import annotations

import altair as alt

from harness.report.drawing import HEIGHT, WIDTH, Drawing, Record, data, interval, record, systems, tooltip, whiskers
from harness.report.style import COLOURS, GREY, marks, rows_with
from harness.tables.cells import heading
from harness.tables.roads import is_control
from harness.tables.table import Row, Table

COVERAGE = "concepts/coverage"
UNITS = "sparsity/strength_l0_total"
PAIRS = ("conjunction", "additive")
WAYS = {"own": "a unit of its own", "parts": "two units of the parts"}
# What stands beside the units in a row of the figure: name of the figure -> what it is, its colour and its shape.
BESIDE = {
    COVERAGE: ("units", COLOURS[0], "circle"),
    "concepts/coverage_random": ("random directions", COLOURS[6], "cross"),
    "concepts/coverage_permuted": ("units, labels of other text", GREY, "diamond"),
    "concepts/bag_f1": ("the words before", GREY, "square"),
    "concepts/probe_f1": ("linear probe on the site", GREY, "triangle-up"),
}


def draw(table: Table) -> list[Drawing]:
    """Nothing without the metric."""
    rows = sorted(rows_with(table, COVERAGE), key=is_control)
    if not rows:
        return []
    says = "Read units beside their own random directions and beside the untrained row. 95% intervals."
    found = [Drawing("concepts", "How well one unit tells a concept", says, _beside(rows))]
    if any(UNITS in row.metrics for row in rows):
        says = "Further up and left: more is told, and fewer units write. 95% intervals."
        found.append(
            Drawing("concepts_units", "Concepts told against units at work", says, _against_units(table, rows))
        )
    says = "F1 of the best unit less that of the best random direction, a mean over the concepts of each kind."
    found.append(Drawing("concepts_kinds", "Which kinds of concepts units tell", says, _kinds(rows)))
    if any(f"concepts/{kind}_own" in row.metrics for row in rows for kind in PAIRS):
        says = (
            "Its own: the best unit that tells the pair better than either part. Additive pairs have no meaning of "
            "their own to have a unit for. 95% intervals."
        )
        found.append(Drawing("concepts_pairs", "Has a pair of concepts a unit of its own?", says, _pairs(rows)))
    return found


def _pairs(rows: list[Row]) -> alt.LayerChart | alt.FacetChart:
    records: list[Record] = [
        {
            "system": row.system,
            "pairs": f"{kind} pairs",
            "what": what,
            **interval("x", figure.value, figure.low, figure.high),
        }
        for row in rows
        for kind in PAIRS
        for name, what in WAYS.items()
        if (figure := row.metrics.get(f"concepts/{kind}_{name}")) is not None
    ]
    ways, names = list(WAYS.values()), [f"{kind} pairs" for kind in PAIRS]
    colour = alt.Color(
        "what:N", sort=ways, scale=alt.Scale(domain=ways, range=list(COLOURS[:2])), legend=alt.Legend(title=None)
    )
    shape = alt.Shape("pairs:N", sort=names, scale=alt.Scale(domain=names, range=["circle", "diamond"]))
    x = alt.X("x:Q", title="F1 for the pair, mean over pairs", scale=alt.Scale(domain=[0, 1], clamp=True))
    order = [row.system for row in rows]
    y = alt.Y("system:N", title=None, sort=order, axis=alt.Axis(grid=True, ticks=False, domain=False))
    base = alt.Chart(data(records))
    dots = base.mark_point(filled=True, size=75, opacity=1).encode(
        x=x, y=y, color=colour, shape=shape, tooltip=["pairs:N", "what:N", *tooltip("x")]
    )
    return alt.layer(whiskers(base, "x", x, y, color=colour), dots).properties(width=WIDTH, height=22 * len(order))


def kinds(rows: list[Row]) -> list[str]:
    """The kinds of concepts that rows have a probe for, in order of first appearance."""
    prefix = "concepts/probe_f1_"
    return list(
        dict.fromkeys(name.removeprefix(prefix) for row in rows for name in row.metrics if name.startswith(prefix))
    )


def _beside(rows: list[Row]) -> alt.LayerChart | alt.FacetChart:
    records: list[Record] = [
        {"system": row.system, "what": what, **interval("x", figure.value, figure.low, figure.high)}
        for row in rows
        for metric, (what, _, _) in BESIDE.items()
        if (figure := row.metrics.get(metric)) is not None
    ]
    order, looks = [row.system for row in rows], list(BESIDE.values())
    names = [what for what, _, _ in looks]
    colour = alt.Color(
        "what:N",
        sort=names,
        scale=alt.Scale(domain=names, range=[c for _, c, _ in looks]),
        legend=alt.Legend(title=None),
    )
    shape = alt.Shape("what:N", sort=names, scale=alt.Scale(domain=names, range=[s for _, _, s in looks]))
    x = alt.X(
        "x:Q",
        title="F1, mean over concepts; units and directions: the best of equally many",
        scale=alt.Scale(domain=[0, 1]),
    )
    y = alt.Y("system:N", title=None, sort=order, axis=alt.Axis(grid=True, ticks=False, domain=False))
    base = alt.Chart(data(records))
    dots = base.mark_point(filled=True, size=75, opacity=1).encode(
        x=x, y=y, color=colour, shape=shape, tooltip=["what:N", *tooltip("x")]
    )
    return alt.layer(whiskers(base, "x", x, y, color=colour), dots).properties(width=WIDTH, height=22 * len(order))


def _against_units(table: Table, rows: list[Row]) -> alt.LayerChart | alt.FacetChart:
    looks = marks(table)
    records = [record(looks, row, {"x": UNITS, "y": COVERAGE}) for row in rows if UNITS in row.metrics]
    of = systems(table, records)
    x = alt.X("x:Q", title=heading(table, UNITS), scale=alt.Scale(type="log", padding=14))
    y = alt.Y("y:Q", title=heading(table, COVERAGE), scale=alt.Scale(zero=False, padding=10))
    base = alt.Chart(data(records))
    dots = base.mark_point(filled=True, size=80, opacity=1).encode(x=x, y=y, tooltip=tooltip("x", "y"), **of)
    return alt.layer(whiskers(base, "y", y, x, color=of["color"]), dots).properties(width=WIDTH, height=HEIGHT)


def _kinds(rows: list[Row]) -> alt.LayerChart | alt.FacetChart:
    records: list[Record] = [
        {"system": row.system, "kind": kind, "f1": figure.value, "text": f"{figure.value:+.2f}"}
        for row in rows
        for kind in kinds(rows)
        if (figure := row.metrics.get(f"{COVERAGE}_{kind}_above_random")) is not None
    ]
    x = alt.X(
        "kind:N", title=None, sort=kinds(rows), axis=alt.Axis(orient="top", labelAngle=0, ticks=False, domain=False)
    )
    y = alt.Y("system:N", title=None, sort=[row.system for row in rows], axis=alt.Axis(ticks=False, domain=False))
    base = alt.Chart(data(records)).encode(x=x, y=y)
    shade = alt.Color(
        "f1:Q", scale=alt.Scale(scheme="blueorange", domain=[-0.5, 0, 0.5], clamp=True, reverse=True), legend=None
    )
    cells = base.mark_rect().encode(color=shade, tooltip=["system:N", "kind:N", alt.Tooltip("f1:Q", format=".4~g")])
    white = alt.condition("abs(datum.f1) > 0.35", alt.value("white"), alt.value("black"))
    text = base.mark_text(fontSize=10).encode(text="text:N", color=white)
    return alt.layer(cells, text).properties(width=74 * len(kinds(rows)), height=20 * len(rows))
