"""Figures of a sweep over dictionaries: how good each kind is at each sparsity, and how many latents it wastes.

A sweep is a table in which some kind of dictionary has several L0s at one width, or several widths; elsewhere these
figures would be single points and are not drawn.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from harness.base.row_name import RowName
from harness.report.style import COLOURS, MARKERS, error
from harness.tables.table import Figure, Row, Table

WIDTH = "dictionary/width"
INFERENCE_L0 = "dictionary/inference_l0"
ERROR = "reconstruction/normalised_mse"
VARIANCE = "reconstruction/explained_variance"
DEAD = "dictionary/inference_dead"
UNDER_USED = "dictionary/inference_under_used"
LineStyle = Literal["-", "--", ":", "-."]
LINES: tuple[LineStyle, ...] = ("-", "--", ":", "-.")


def against_l0(axes: Axes, table: Table, metric: str, label: str) -> bool:
    """One line a kind and width, its points the inference L0s."""
    rows = _rows(table, INFERENCE_L0, metric)
    lines: dict[tuple[str, float], list[Row]] = defaultdict(list)
    for row in rows:
        lines[_kind(row), row.metrics[WIDTH].value].append(row)
    if all(len(points) < 2 for points in lines.values()):
        return False
    kinds, widths = list(dict.fromkeys(kind for kind, _ in lines)), sorted({width for _, width in lines})
    for (kind, width), points in lines.items():
        points.sort(key=lambda row: row.metrics[INFERENCE_L0].value)
        _line(axes, points, INFERENCE_L0, metric, kinds.index(kind), LINES[widths.index(width) % len(LINES)])
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("latents per token at inference (L0)")
    axes.set_ylabel(label)
    shown: list[tuple[str, LineStyle]] = [
        (f"{width:,.0f} latents", LINES[i % len(LINES)]) for i, width in enumerate(widths)
    ]
    _legend(axes, kinds, shown)
    return True


def wasted(axes: Axes, table: Table) -> bool:
    """Dead (whole lines) and under-used (dashed) latents against width, one line a kind, over its L0s."""
    rows = _rows(table, DEAD, UNDER_USED)
    by_kind: dict[str, dict[float, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        by_kind[_kind(row)][row.metrics[WIDTH].value].append(row)
    if all(len(widths) < 2 for widths in by_kind.values()):
        return False
    kinds = list(by_kind)
    for place, widths in enumerate(by_kind.values()):
        for metric, line in ((DEAD, LINES[0]), (UNDER_USED, LINES[1])):
            xs = sorted(widths)
            shares = [[100 * row.metrics[metric].value for row in widths[x]] for x in xs]
            means = [sum(at) / len(at) for at in shares]
            spread = [
                [mean - min(at) for mean, at in zip(means, shares, strict=True)],
                [max(at) - mean for mean, at in zip(means, shares, strict=True)],
            ]
            # Kinds beside each other at a width: their bars would hide one another.
            beside = [x * 1.03 ** (place - (len(kinds) - 1) / 2) for x in xs]
            axes.errorbar(
                beside,
                means,
                yerr=spread,
                color=COLOURS[place % len(COLOURS)],
                marker=MARKERS[place % len(MARKERS)],
                linestyle=line,
                capsize=2,
                markersize=5,
            )
    axes.set_xscale("log", base=2)
    ticks = sorted({x for widths in by_kind.values() for x in widths})
    axes.set_xticks(ticks, [f"{x:,.0f}" for x in ticks])
    axes.minorticks_off()
    axes.set_ylim(bottom=-2)
    axes.set_xlabel("latents in the dictionary")
    tokens = rows[0].metrics["dictionary/held_out_tokens"].value
    axes.set_ylabel(f"share of latents (%), {tokens:,.0f} held-out tokens")
    axes.set_title("mean over target L0s, bars from the least to the most", fontsize=10, loc="left")
    _legend(axes, kinds, [("dead", LINES[0]), ("under-used or dead", LINES[1])])
    return True


def _rows(table: Table, *metrics: str) -> list[Row]:
    needed = (WIDTH, *metrics)
    return [row for row in table.rows if row.kind == "dictionary" and all(name in row.metrics for name in needed)]


def _kind(row: Row) -> str:
    """The row's name without what a sweep varies: `dense+topk[k=8,n_latents=512]` is `dense+topk`."""
    return str(RowName.of(row.system).without("k", "n_latents"))


def _line(axes: Axes, points: list[Row], x: str, y: str, place: int, line: LineStyle) -> None:
    def ends(figure: Figure) -> tuple[float, float]:
        bars = error(figure) or [[0.0], [0.0]]
        return bars[0][0], bars[1][0]

    bars = [ends(row.metrics[y]) for row in points]
    axes.errorbar(
        [row.metrics[x].value for row in points],
        [row.metrics[y].value for row in points],
        yerr=[list(side) for side in zip(*bars, strict=True)],
        color=COLOURS[place % len(COLOURS)],
        marker=MARKERS[place % len(MARKERS)],
        linestyle=line,
        linewidth=1.3,
        capsize=2,
        markersize=5,
    )


def _legend(axes: Axes, kinds: list[str], lines: list[tuple[str, LineStyle]]) -> None:
    """Colours and markers are kinds, line styles are the rest: two short lists instead of every combination."""
    handles = [
        Line2D([], [], color=COLOURS[i % len(COLOURS)], marker=MARKERS[i % len(MARKERS)], label=kind)
        for i, kind in enumerate(kinds)
    ]
    handles += [Line2D([], [], color="#444444", linestyle=style, label=label) for label, style in lines]
    axes.legend(handles=handles, frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
