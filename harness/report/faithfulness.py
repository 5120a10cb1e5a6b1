"""What is left of a model on a part of each token's units: by order and share, and by how many are kept."""

from __future__ import annotations

import re

import altair as alt

from harness.report.drawing import HEIGHT, WIDTH, Drawing, Record, data, record, systems, tooltip
from harness.report.style import marks
from harness.tables.roads import is_control
from harness.tables.table import Table

ORDERS = {
    "best": "what matters most first",
    "random": "at random",
    "worst": "what matters least first",
    "against": "chosen against the model",
}
_PART = re.compile(r"faithfulness/(best|random|worst|against)_(\d+)_lost$")
_COUNT = re.compile(r"faithfulness/count_(\d+)_lost$")
_LOST = "share lost of what units do"


def draw(table: Table) -> list[Drawing]:
    return [one for one in (_by_share(table), _by_count(table)) if one is not None]


def points(table: Table) -> list[Record]:
    """One for every row, order and share. Untrained rows have nothing to lose."""
    looks = marks(table)
    return [
        record(looks, row, {"y": name}, share=int(found[2]), order=ORDERS[found[1]])
        for row in table.rows
        for name in row.metrics
        if not is_control(row) and (found := _PART.match(name))
    ]


def counts(table: Table) -> list[Record]:
    """One for every row and number of units."""
    looks = marks(table)
    return [
        record(looks, row, {"y": name}, units=int(found[1]))
        for row in table.rows
        for name in row.metrics
        if not is_control(row) and (found := _COUNT.match(name))
    ]


def _by_share(table: Table) -> Drawing | None:
    records = points(table)
    if not records:
        return None
    of = systems(table, records)
    x = alt.X("share:Q", title="percent of a token's units", scale=alt.Scale(reverse=True))
    y = alt.Y("y:Q", title=_LOST, scale=alt.Scale(type="symlog", constant=0.1))
    base = alt.Chart()
    lines = base.mark_line(strokeWidth=1.6).encode(x=x, y=y, color=of["color"], detail="system:N")
    dots = base.mark_point(filled=True, size=45, opacity=1).encode(x=x, y=y, tooltip=[*tooltip("y"), "share:Q"], **of)
    panel = alt.layer(lines, dots).properties(width=(WIDTH + 160) / len(ORDERS), height=HEIGHT - 60)
    chart = panel.facet(alt.Facet("order:N", sort=list(ORDERS.values()), title=None), data=data(records))
    says = (
        "1: as without any unit. Units that cancel are not missed together, and are missed apart: see the last panel."
    )
    return Drawing("subsets", "Loss when each token keeps a part of its units", says, chart)


def _by_count(table: Table) -> Drawing | None:
    records = counts(table)
    if not records:
        return None
    of = systems(table, records)
    x = alt.X(
        "units:Q", title="units of a token and site, what matters most first", scale=alt.Scale(type="log", base=2)
    )
    y = alt.Y("y:Q", title=_LOST)
    base = alt.Chart(data(records))
    lines = base.mark_line(strokeWidth=1.6).encode(x=x, y=y, color=of["color"], detail="system:N")
    dots = base.mark_point(filled=True, size=45, opacity=1).encode(x=x, y=y, tooltip=[*tooltip("y"), "units:Q"], **of)
    chart = alt.layer(lines, dots).properties(width=WIDTH, height=HEIGHT)
    return Drawing("enough", "How many units of a token are enough", "Lower and further left: fewer do it all.", chart)
