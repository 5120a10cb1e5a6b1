"""Figures of a sweep over dictionaries: how good each kind is at each sparsity, and how many latents it wastes.

A sweep is a table in which some kind of dictionary has several L0s at one width, or several widths; elsewhere these
figures would be single points and are not drawn.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import altair as alt

from harness.report.drawing import HEIGHT, WIDTH, Drawing, Record, data, record, tooltip, whiskers
from harness.report.style import COLOURS, SHAPES, marks, sweep
from harness.tables.cells import heading
from harness.tables.table import Row, Table

WIDTH_OF, L0 = "dictionary/width", "dictionary/inference_l0"
ERROR, VARIANCE = "reconstruction/normalised_mse", "reconstruction/explained_variance"
DEAD, UNDER_USED = "dictionary/inference_dead", "dictionary/inference_under_used"
_SHAPES = (*SHAPES["post-hoc"], *SHAPES["built-in"], "circle", "cross")


def draw(table: Table) -> list[Drawing]:
    drawn = [
        _against_l0(table, ERROR, "dictionary_error", "Error at each sparsity"),
        _against_l0(table, VARIANCE, "dictionary_variance", "Explained variance at each sparsity"),
        _wasted(table),
    ]
    return [one for one in drawn if one is not None]


def _rows(table: Table, *metrics: str) -> list[Row]:
    return [row for row in table.rows if row.kind == "dictionary" and all(name in row.metrics for name in metrics)]


def points(table: Table, metric: str) -> list[Record]:
    """One a row. `kind` and `width` name its line: rows of one kind and width that differ in L0."""
    rows, looks = _rows(table, WIDTH_OF, L0, metric), marks(table)
    records = [
        record(looks, row, {"x": L0, "y": metric}, kind=sweep(row.system), width=row.metrics[WIDTH_OF].value)
        for row in rows
    ]
    return sorted(records, key=lambda one: (one["kind"], one["width"], one["x"]))


def _against_l0(table: Table, metric: str, name: str, title: str) -> Drawing | None:
    """A line a kind and width; the dash is the width."""
    records = points(table, metric)
    if all(many < 2 for many in Counter((one["kind"], one["width"]) for one in records).values()):
        return None
    colour, shape = _kinds(records)
    x = alt.X("x:Q", title="latents a token at inference (L0)", scale=alt.Scale(type="log", base=2, padding=12))
    y = alt.Y("y:Q", title=heading(table, metric), scale=alt.Scale(zero=False, padding=10))
    base = alt.Chart(data(records))
    lines = base.mark_line(strokeWidth=1.5).encode(x=x, y=y, color=colour, strokeDash=_dash(records))
    dots = base.mark_point(filled=True, size=70, opacity=1).encode(
        x=x, y=y, color=colour, shape=shape, tooltip=[*tooltip("y", "x"), "width:Q"]
    )
    chart = alt.layer(whiskers(base, "y", y, x, color=colour), lines, dots).properties(width=WIDTH, height=HEIGHT)
    return Drawing(name, title, "A line is a kind of dictionary at one width. 95% intervals.", chart)


def wasted(table: Table) -> list[Record]:
    """Two a row: latents that are dead, and those that are dead or under-used, in percent."""
    found, looks = [], marks(table)
    for row in _rows(table, WIDTH_OF, L0, DEAD, UNDER_USED):
        for metric, what in ((DEAD, "dead"), (UNDER_USED, "under-used or dead")):
            one = record(looks, row, {"x": L0}, kind=sweep(row.system), width=row.metrics[WIDTH_OF].value)
            found.append(one | {"what": what, "y": 100 * row.metrics[metric].value})
    return sorted(found, key=lambda one: (one["kind"], one["width"], one["x"]))


def _wasted(table: Table) -> Drawing | None:
    records = wasted(table)
    if all(many < 2 for many in Counter((one["kind"], one["width"], one["what"]) for one in records).values()):
        return None
    colour, shape = _kinds(records)
    tokens = _rows(table, WIDTH_OF, L0, DEAD)[0].metrics.get("dictionary/held_out_tokens")
    x = alt.X("x:Q", title="latents a token at inference (L0)", scale=alt.Scale(type="log", base=2, padding=12))
    y = alt.Y("y:Q", title="share of latents (%)")
    base = alt.Chart().properties(width=WIDTH / 2 + 30, height=HEIGHT - 40)
    lines = base.mark_line(strokeWidth=1.5).encode(x=x, y=y, color=colour, strokeDash=_dash(records))
    tips = ["kind:N", "width:Q", "what:N", alt.Tooltip("y:Q", format=".3~g")]
    dots = base.mark_point(filled=True, size=70, opacity=1).encode(x=x, y=y, color=colour, shape=shape, tooltip=tips)
    chart = alt.layer(lines, dots).facet(alt.Facet("what:N", title=None), data=data(records))
    says = f"Over {tokens.value:,.0f} held-out tokens. " if tokens else ""
    return Drawing("dictionary_waste", "Latents that are wasted", f"{says}A line is a kind at one width.", chart)


def _dash(records: list[Record]) -> Any:
    one_width = len({one["width"] for one in records}) == 1
    return alt.Undefined if one_width else alt.StrokeDash("width:O", legend=alt.Legend(title="latents"))


def _kinds(records: list[Record]) -> tuple[alt.Color, alt.Shape]:
    kinds = list(dict.fromkeys(one["kind"] for one in records))
    ranges = [[of[place % len(of)] for place in range(len(kinds))] for of in (COLOURS, _SHAPES)]
    return (
        alt.Color("kind:N", scale=alt.Scale(domain=kinds, range=ranges[0])),
        alt.Shape("kind:N", scale=alt.Scale(domain=kinds, range=ranges[1])),
    )
