"""Loss of every row, and of what only counts tokens; of rows with dictionaries, how much is the splice."""

from __future__ import annotations

import altair as alt

from harness.report.drawing import ROW_HEIGHT, WIDTH, Drawing, data, interval, systems, tooltip, whiskers
from harness.report.style import GREY, marks
from harness.tables.headline import grouped
from harness.tables.splice import NATIVE, SPLICED
from harness.tables.table import Table

LEFT_OUT = ("unigram",)  # so far off that it would squeeze the rest


def draw(table: Table) -> Drawing | None:
    """Rows in the order of the headline's groups, in each the lowest loss first."""
    of, records, native, counted = marks(table), [], [], []
    for group in grouped(table):
        for row in group.rows:
            figure = row.metrics.get(SPLICED) or row.metrics.get(NATIVE)
            if figure is None or row.system in LEFT_OUT:
                continue
            one = {"system": row.system, "label": of[row.system].label if row.system in of else row.system}
            one |= interval("x", figure.value, figure.low, figure.high)
            (records if row.kind != "reference" else counted).append(one)
            if row.kind == "dictionary" and NATIVE in row.metrics:
                native.append({"system": row.system, "x": row.metrics[NATIVE].value, "to": figure.value})
    if not records:
        return None
    order = [one["system"] for one in (*records, *counted)]
    channels = systems(table, records, legend=False)
    y = alt.Y("system:N", sort=order, title=None, axis=alt.Axis(grid=True, ticks=False, domain=False))
    x = alt.X("x:Q", title="bits per byte on the evaluation text (lower is better)", scale=alt.Scale(zero=False))
    base = alt.Chart(data([*records, *counted]))
    layers = [whiskers(base, "x", x, y, color="#bbbbbb")]
    if native:
        of_subject = alt.Chart(data(native))
        layers.append(of_subject.mark_rule(strokeWidth=3, opacity=0.35, color=GREY).encode(x=x, x2="to", y=y))
        layers.append(of_subject.mark_tick(thickness=2, size=14, color=GREY).encode(x=x, y=y))
    layers.append(
        alt.Chart(data(records))
        .mark_point(filled=True, size=80, opacity=1)
        .encode(x=x, y=y, tooltip=tooltip("x"), **channels)
    )
    if counted:
        layers.append(
            alt.Chart(data(counted))
            .mark_tick(thickness=3, size=14, color="black")
            .encode(x=x, y=y, tooltip=tooltip("x"))
        )
    says = "Running through the units. Grey: 95% intervals, unpaired; the first figure has paired differences."
    if native:
        says += " A grey tick: the same subject without its dictionaries."
    return Drawing("losses", "Loss", says, alt.layer(*layers).properties(width=WIDTH, height=ROW_HEIGHT * len(order)))
