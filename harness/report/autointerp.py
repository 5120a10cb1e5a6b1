"""How well units are explained beside controls that have nothing to explain: a panel a system."""

from __future__ import annotations

import altair as alt

from harness.report.drawing import Drawing, Record, data, interval, whiskers
from harness.report.style import COLOURS, GREY
from harness.tables.columns import any_figure
from harness.tables.table import Row, Table

REAL = "real units"
_FAMILY = "autointerp_controls/"
_SAYS = {
    "random_dictionary": "random directions",
    "another_unit": "another unit's explanation",
    "shuffled": "firings moved at random",
    "constant": "“fires on every token”",
    "merged_2": "2 units merged",
    "merged_4": "4 units merged",
}
_LOOKS = {REAL: (COLOURS[0], "circle"), _SAYS["random_dictionary"]: (COLOURS[6], "cross")}
MAIN = (
    "rule_balanced_accuracy",
    "detection_balanced_accuracy",
    "fuzzing_balanced_accuracy",
    "simulation_pearson",
    "embedding_auroc",
)


def draw(table: Table) -> list[Drawing]:
    """One figure for every scorer that the table has. The number to read is real minus random directions."""
    found = []
    for score in MAIN:
        metric = f"autointerp/{score}"
        if any_figure(table, metric) is None:
            continue
        records = [one for row in table.rows if metric in row.metrics for one in _of(row, score)]
        if any(one["what"] != REAL for one in records):
            name = score.replace("_", " ")
            says = (
                "Each panel is one system; only what stands right of random directions is said by units. 95% intervals."
            )
            found.append(
                Drawing(
                    f"autointerp_{score}",
                    f"Explanations of units beside their controls: {name}",
                    says,
                    _chart(records, name),
                )
            )
    return found


def _of(row: Row, score: str) -> list[Record]:
    figures = {REAL: row.metrics[f"autointerp/{score}"]}
    for control, says in _SAYS.items():
        if (figure := row.metrics.get(f"{_FAMILY}{score}_{control}")) is not None:
            figures[says] = figure
    return [
        {"system": row.system, "what": what, **interval("x", figure.value, figure.low, figure.high)}
        for what, figure in figures.items()
    ]


def _chart(records: list[Record], name: str) -> alt.FacetChart:
    order = [what for what in (REAL, *_SAYS.values()) if any(one["what"] == what for one in records)]
    colour = alt.Color(
        "what:N", legend=None, scale=alt.Scale(domain=order, range=[_LOOKS.get(w, (GREY, ""))[0] for w in order])
    )
    shape = alt.Shape(
        "what:N", legend=None, scale=alt.Scale(domain=order, range=[_LOOKS.get(w, ("", "diamond"))[1] for w in order])
    )
    x = alt.X("x:Q", title=name, scale=alt.Scale(zero=False))
    y = alt.Y("what:N", sort=order, title=None, axis=alt.Axis(grid=True, ticks=False, domain=False))
    base = alt.Chart().properties(width=190, height=17 * len(order))
    bars = whiskers(base, "x", x, y, color=colour)
    tips = [
        alt.Tooltip("system:N"),
        alt.Tooltip("what:N"),
        *(alt.Tooltip(f"{f}:Q", format=".4~g") for f in ("x", "x_low", "x_high")),
    ]
    dots = base.mark_point(filled=True, size=70, opacity=1).encode(x=x, y=y, color=colour, shape=shape, tooltip=tips)
    systems = list(dict.fromkeys(one["system"] for one in records))
    facet = alt.Facet("system:N", sort=systems, title=None, header=alt.Header(labelFontWeight="bold"))
    return alt.layer(bars, dots, data=data(records)).facet(facet, columns=3, spacing=18)
