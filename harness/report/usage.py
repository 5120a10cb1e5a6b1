"""How the units share the work: dead, rare and always-on ones, a dot each."""

from __future__ import annotations

import altair as alt

from harness.report.drawing import ROW_HEIGHT, WIDTH, Drawing, Record, data, interval, whiskers
from harness.report.style import COLOURS, rows_with
from harness.tables.table import Figure, Table

PARTS = {"usage/dead": "dead", "usage/rare": "rare", "usage/always_on": "always on"}
_LOOKS = {"dead": (COLOURS[6], "cross"), "rare": (COLOURS[4], "diamond"), "always on": (COLOURS[0], "circle")}


def _percent(figure: Figure) -> Record:
    """An interval of a share ends where shares do."""
    low, high = (end if end is None else 100 * min(max(end, 0.0), 1.0) for end in (figure.low, figure.high))
    return interval("x", 100 * figure.value, low, high)


def draw(table: Table) -> Drawing | None:
    rows = rows_with(table, *PARTS)
    records = [
        {"system": row.system, "part": part, **_percent(f)}
        for row in rows
        for metric, part in PARTS.items()
        if (f := row.metrics[metric])
    ]
    if not records:
        return None
    order = [row.system for row in rows]
    x = alt.X(
        "x:Q",
        title="share of units (%)",
        scale=alt.Scale(domain=[-3, 103]),
        axis=alt.Axis(values=list(range(0, 101, 20))),
    )
    y = alt.Y("system:N", sort=order, title=None, axis=alt.Axis(grid=True, ticks=False, domain=False))
    names = list(_LOOKS)
    colour = alt.Color("part:N", scale=alt.Scale(domain=names, range=[_LOOKS[n][0] for n in names]))
    shape = alt.Shape("part:N", scale=alt.Scale(domain=names, range=[_LOOKS[n][1] for n in names]))
    beside = alt.YOffset("part:N", sort=names)
    base = alt.Chart(data(records))
    bars = whiskers(base, "x", x, y, color=colour).encode(yOffset=beside)
    tips = [alt.Tooltip("system:N"), alt.Tooltip("part:N"), alt.Tooltip("x:Q", format=".3~g")]
    dots = base.mark_point(filled=True, size=80, opacity=1).encode(
        x=x, y=y, yOffset=beside, color=colour, shape=shape, tooltip=tips
    )
    tokens = rows[0].metrics.get("usage/tokens")
    over = f"Over {tokens.value:,.0f} held-out tokens: fewer would make more units look dead." if tokens else ""
    chart = alt.layer(bars, dots).properties(width=WIDTH, height=ROW_HEIGHT * len(order))
    return Drawing("usage", "Units that never fire, seldom fire, or nearly always", over, chart)
