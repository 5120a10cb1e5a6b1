"""Training: the loss of subjects, a panel a road; what dictionaries explain and waste, a panel a figure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import altair as alt

from harness.report.curves import SHOWN, Curve
from harness.report.drawing import HEIGHT, WIDTH, Drawing, Record, data, systems
from harness.report.style import DASHES, marks, scales
from harness.tables.roads import road
from harness.tables.table import Table


def draw(table: Table, curves: Sequence[Curve]) -> list[Drawing]:
    """Lines are means over seeds (of dictionaries, over sites too), bands from the least to the most of them."""
    roads = {row.system: road(row) for row in table.rows}
    kept = [curve for curve in curves if curve.system in roads]
    subjects = [curve for curve in kept if not curve.site]
    drawn = []
    records = [one | {"panel": roads[one["system"]]} for one in bands(table, subjects, "loss")]
    if records:
        says = "A panel a road; bands over seeds. Systems train on other numbers of tokens where compute is matched."
        chart = _chart(table, records, "training loss (nats a token)")
        drawn.append(Drawing("training", "Loss of subjects over training", says, chart))
    dictionaries = [curve for curve in kept if curve.site]
    records = [
        one | {"panel": says}
        for name, says in SHOWN.items()
        if name != "loss"
        for one in bands(table, dictionaries, name)
    ]
    if records:
        says = "Means over layers and seeds, bands from the least to the most."
        chart = _chart(table, records, "")
        drawn.append(Drawing("training_dictionaries", "Dictionaries over training", says, chart))
    return drawn


def bands(table: Table, curves: Sequence[Curve], name: str) -> list[Record]:
    """`y` and its least and most over the curves of a system, at the tokens where all of them have a point."""
    of = marks(table)
    at: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    many: dict[str, int] = defaultdict(int)
    for curve in curves:
        if name in curve.points:
            many[curve.system] += 1
            for tokens, value in zip(curve.tokens, curve.points[name], strict=True):
                at[curve.system][tokens].append(value)
    return [
        {"system": system, "label": of[system].label, "tokens": tokens, "y": sum(values) / len(values),
         "y_low": min(values), "y_high": max(values)}
        for system, points in at.items()
        for tokens, values in sorted(points.items())
        if len(values) == many[system]
    ]  # fmt: skip


def _chart(table: Table, records: list[Record], title: str) -> alt.FacetChart:
    of = systems(table, records)
    colour, shapes = of["color"], scales(table, [one["system"] for one in records])[1]
    dashes = alt.Scale(domain=shapes["domain"], range=[DASHES[shape] for shape in shapes["range"]])
    dash = alt.StrokeDash("label:N", scale=dashes, legend=alt.Legend(symbolType="stroke", symbolSize=300))
    panels = list(dict.fromkeys(one["panel"] for one in records))
    x = alt.X("tokens:Q", title="training tokens", axis=alt.Axis(format="~s", tickCount=4))
    y = alt.Y("y:Q", title=title, scale=alt.Scale(zero=False))
    base = alt.Chart().properties(width=(WIDTH + 120) / len(panels), height=HEIGHT - 80)
    band = base.mark_area(opacity=0.2).encode(
        x=x, y=alt.Y("y_low:Q", title=title), y2="y_high", color=colour, detail="system:N"
    )
    tips = ["system:N", "tokens:Q", alt.Tooltip("y:Q", format=".4~g")]
    line = base.mark_line(strokeWidth=1.4).encode(
        x=x, y=y, color=colour, strokeDash=dash, detail="system:N", tooltip=tips
    )
    facet = alt.Facet("panel:N", sort=panels, title=None)
    chart = alt.layer(band, line).facet(facet, data=data(records))
    return chart.resolve_scale(y="shared" if title else "independent", x="shared" if title else "independent")
