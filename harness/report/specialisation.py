"""What is lost in each domain without the units of each: a matrix a system, whose mass should lie on the diagonal."""

from __future__ import annotations

import re

import altair as alt

from harness.report.drawing import Drawing, Record, data
from harness.tables.roads import is_control
from harness.tables.table import Table

_NAME = re.compile(r"specialisation/without_(.+)_in_(.+)$")
_SHARE = re.compile(r"specialisation/share_(\d+\.\d+)_in_(.+)$")
_CELL, _COLUMNS = 44, 4  # pixels; matrices side by side
_AXIS = alt.Axis(labelAngle=-45, labelOverlap=False, ticks=False, domain=False)


def points(table: Table) -> list[Record]:
    return [
        {"system": row.system, "without": found[1], "domain": found[2], "rise": figure.value}
        for row in table.rows
        for name, figure in row.metrics.items()
        if not is_control(row) and (found := _NAME.match(name))
    ]


def shares(table: Table) -> list[Record]:
    """How many times its even part of a domain's firings a pool has, of systems with few pools."""
    found = []
    for row in table.rows:
        of = {name: match for name in row.metrics if (match := _SHARE.match(name))}
        evenly = len({match[1] for match in of.values()}) / max(
            1, len({match[1].split(".")[0] for match in of.values()})
        )
        found += [
            {"system": row.system, "pool": match[1], "domain": match[2], "times": row.metrics[name].value * evenly}
            for name, match in of.items()
            if not is_control(row)
        ]
    return found


def draw(table: Table) -> list[Drawing]:
    return [one for one in (_knockout(table), _pools(table)) if one is not None]


def _pools(table: Table) -> Drawing | None:
    records = shares(table)
    if not records:
        return None
    domains, pools = ([*dict.fromkeys(str(one[key]) for one in records)] for key in ("domain", "pool"))
    x = alt.X("domain:N", sort=domains, title="domain", axis=_AXIS)
    y = alt.Y("pool:N", sort=pools, title="layer and pool", axis=alt.Axis(ticks=False, domain=False))
    scale = alt.Scale(scheme="blueorange", type="symlog", domainMid=1, reverse=True)
    shade = alt.Color("times:Q", title="times its even part", scale=scale)
    said = ["system:N", "pool:N", "domain:N", alt.Tooltip("times:Q", format=".2f")]
    base = alt.Chart()
    cells = base.mark_rect().encode(x=x, y=y, color=shade, tooltip=said)
    text = base.mark_text(fontSize=9).encode(x=x, y=y, text=alt.Text("times:Q", format=".1f"))
    panel = alt.layer(cells, text).properties(width=_CELL * len(domains), height=18 * len(pools))
    systems = list(dict.fromkeys(str(one["system"]) for one in records))
    chart = panel.facet(alt.Facet("system:N", sort=systems, title=None), data=data(records), columns=_COLUMNS)
    chart = chart.resolve_scale(y="independent")
    return Drawing(
        "pools",
        "Which pools fire in which domains",
        "1: an even part of what fires there. A pool whose row varies tells domains apart.",
        chart,
    )


def _knockout(table: Table) -> Drawing | None:
    records = points(table)
    if not records:
        return None
    domains = list(dict.fromkeys(str(one["without"]) for one in records))
    x = alt.X("domain:N", sort=domains, title="loss in", axis=_AXIS)
    y = alt.Y("without:N", sort=domains, title="without the units of", axis=alt.Axis(ticks=False, domain=False))
    # Even on both sides, so that what is next to nothing looks like that; a game loses a hundred times what prose does.
    most = max(abs(float(str(one["rise"]))) for one in records)
    scale = alt.Scale(scheme="blueorange", domain=[-most, most], type="symlog", constant=0.05, reverse=True)
    shade = alt.Color("rise:Q", title="bits per byte", scale=scale)
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
