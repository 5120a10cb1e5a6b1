"""What is lost in each domain without the units of each: a matrix a system, whose mass should lie on the diagonal."""

from __future__ import annotations

import re

import altair as alt

from harness.report.drawing import Drawing, Record, data
from harness.tables.roads import is_control
from harness.tables.table import Table

_NAME = re.compile(r"specialisation/without_(.+)_in_(.+)$")
_CELL, _COLUMNS = 44, 4  # pixels; matrices side by side


def points(table: Table) -> list[Record]:
    return [
        {"system": row.system, "without": found[1], "domain": found[2], "rise": figure.value}
        for row in table.rows
        for name, figure in row.metrics.items()
        if not is_control(row) and (found := _NAME.match(name))
    ]


def draw(table: Table) -> Drawing | None:
    records = points(table)
    if not records:
        return None
    domains = list(dict.fromkeys(str(one["without"]) for one in records))
    x = alt.X("domain:N", sort=domains, title="loss in", axis=alt.Axis(labelAngle=-45, ticks=False, domain=False))
    y = alt.Y("without:N", sort=domains, title="without the units of", axis=alt.Axis(ticks=False, domain=False))
    shade = alt.Color("rise:Q", title="bits per token", scale=alt.Scale(scheme="blueorange", domainMid=0, reverse=True))
    said = ["system:N", "without:N", "domain:N", alt.Tooltip("rise:Q", format="+.3f")]
    base = alt.Chart()
    cells = base.mark_rect().encode(x=x, y=y, color=shade, tooltip=said)
    text = base.mark_text(fontSize=9).encode(x=x, y=y, text=alt.Text("rise:Q", format="+.2f"))
    side = _CELL * len(domains)
    panel = alt.layer(cells, text).properties(width=side, height=side / 2)
    systems = list(dict.fromkeys(str(one["system"]) for one in records))
    chart = panel.facet(alt.Facet("system:N", sort=systems, title=None), data=data(records), columns=_COLUMNS)
    says = "Units are given to the domain in which they fire twice as much as in any other, on other text."
    return Drawing("knockout", "What is lost where, without the units of one domain", says, chart)
