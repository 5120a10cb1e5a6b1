"""A figure of a comparison as a Vega-Lite specification: the same one becomes a PNG and a live figure on the page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import vl_convert

from harness.report.style import CONFIG, GREY, Mark, scales
from harness.tables.roads import road
from harness.tables.table import Row, Table

Record = dict[str, Any]
WIDTH, HEIGHT, ROW_HEIGHT = 520, 330, 22


@dataclass(frozen=True)
class Drawing:
    """name: of its file. title: what it answers. chart: the whole figure, without a title."""

    name: str
    title: str
    subtitle: str
    chart: Any  # an altair chart of any kind

    def spec(self, *, titled: bool = True) -> dict[str, Any]:
        """The specification, with its data inside. The same table gives the same bytes."""
        chart = self.chart
        if titled:
            chart = chart.properties(title=alt.Title(self.title, subtitle=_lines(self.subtitle)))
        with alt.data_transformers.enable("default", max_rows=None, consolidate_datasets=False):
            found = chart.to_dict()
        return {**found, "config": CONFIG}

    def png(self) -> bytes:
        return vl_convert.vegalite_to_png(self.spec(), scale=1.6)

    def svg(self) -> str:
        """Without its title: on the page that is the caption."""
        return vl_convert.vegalite_to_svg(self.spec(titled=False))


def record(looks: Mapping[str, Mark], row: Row, figures: Mapping[str, str], **more: object) -> Record:
    """One row's datum. looks: `marks` of its table. `figures`: field -> metric; each field gets `_low` and `_high` too
    (the value where there is no interval)."""
    found: Record = {"system": row.system, "label": looks[row.system].label, "road": road(row)}
    for field, metric in figures.items():
        figure = row.metrics[metric]
        found |= interval(field, figure.value, figure.low, figure.high)
    return found | more


def interval(field: str, value: float, low: float | None, high: float | None) -> Record:
    return {
        field: value,
        f"{field}_low": value if low is None else low,
        f"{field}_high": value if high is None else high,
    }


def data(records: Iterable[Record]) -> alt.InlineData:
    return alt.InlineData(values=list(records))


def systems(table: Table, records: Sequence[Record], *, legend: bool = True) -> dict[str, Any]:
    """The channels colour and shape of the systems in `records`."""
    colours, shapes = scales(table, [one["system"] for one in records])
    shown = alt.Legend(symbolOpacity=1, orient="right") if legend else None
    return {
        "color": alt.Color("label:N", scale=alt.Scale(**colours), legend=shown),
        "shape": alt.Shape("label:N", scale=alt.Scale(**shapes), legend=shown),
    }


def forest(
    table: Table, records: Sequence[Record], title: str, null: float | None, *, log: bool = False
) -> alt.LayerChart | alt.FacetChart:
    """Systems down, the field `x` with its interval across, and a rule at `null` where that means nothing."""
    order = list(dict.fromkeys(one["system"] for one in records))
    of = systems(table, records, legend=False)
    scale = alt.Scale(type="log") if log else alt.Scale(zero=False, nice=True)
    x = alt.X("x:Q", title=title, scale=scale)
    y = alt.Y("system:N", title=None, sort=order, axis=alt.Axis(grid=True, ticks=False, domain=False))
    base = alt.Chart(data(records))
    bars = whiskers(base, "x", x, y, color=of["color"])
    dots = base.mark_point(filled=True, size=75, opacity=1).encode(x=x, y=y, tooltip=tooltip("x"), **of)
    layers: list[Any] = [bars, dots]
    if null is not None:
        layers.insert(0, alt.Chart(data([{"x": null}])).mark_rule(color=GREY, strokeDash=[5, 4]).encode(x="x:Q"))
    return alt.layer(*layers).properties(width=WIDTH, height=ROW_HEIGHT * len(order))


def whiskers(base: alt.Chart, field: str, channel: alt.X | alt.Y, across: alt.X | alt.Y, color: Any) -> alt.Chart:
    """The intervals of `field` along its `channel`, whose title and scale they share."""
    low = channel.copy()
    low.shorthand = f"{field}_low:Q"
    along, other = ("x", "y") if isinstance(channel, alt.X) else ("y", "x")
    ends = {along: low, f"{along}2": f"{field}_high", other: across}
    if isinstance(color, str):
        return base.mark_rule(strokeWidth=1.5, aria=False, color=color).encode(**ends)
    return base.mark_rule(strokeWidth=1.5, aria=False).encode(**ends, color=color)


def tooltip(*fields: str) -> list[alt.Tooltip]:
    """The system, and each field with its interval."""
    found = [alt.Tooltip("system:N")]
    for field in fields:
        found += [alt.Tooltip(f"{name}:Q", format=".5~g") for name in (field, f"{field}_low", f"{field}_high")]
    return found


def _lines(text: str, longest: int = 100) -> list[str]:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) >= longest:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines
