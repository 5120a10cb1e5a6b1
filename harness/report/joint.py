"""Figures of joint structure: what pairs say together beside their floor, by system and by number of active units."""

from __future__ import annotations

from collections import defaultdict

from matplotlib.axes import Axes

from harness.base.row_name import RowName
from harness.report.style import COLOURS, GREY, MARKERS, error
from harness.tables.table import Figure, Row, Table

SHARE, FLOOR_SHARE = "joint/excess_share", "joint/floor_share"
CONJUNCTION, FLOOR_CONJUNCTION = "joint/conjunction", "joint/conjunction_floor"
WIDE = 30  # systems this many times apart share no linear axis: the smaller ones would all lie at 0


def beside_floor(axes: Axes, table: Table, metric: str, floor: str, label: str) -> bool:
    """One line a system: the figure of its pairs and that of random directions in the same contexts."""
    rows = [row for row in table.rows if metric in row.metrics and floor in row.metrics]
    if not rows:
        return False
    for place, row in enumerate(rows):
        real, chance = row.metrics[metric], row.metrics[floor]
        axes.plot([chance.value, real.value], [place, place], color=GREY, linewidth=0.8, zorder=0)
        drawn: list[tuple[Figure, float, str, str, str]] = [
            (real, -0.08, COLOURS[0], MARKERS[0], "two units"),
            (chance, 0.08, GREY, MARKERS[1], "two random directions (floor)"),
        ]
        for figure, beside, colour, marker, name in drawn:
            axes.errorbar(
                figure.value,
                place + beside,
                xerr=error(figure),
                color=colour,
                marker=marker,
                linestyle="",
                capsize=2,
                markersize=6,
                label=name if place == 0 else None,
            )
    axes.set_yticks(range(len(rows)), [row.system for row in rows])
    axes.invert_yaxis()
    values = [row.metrics[name].value for row in rows for name in (metric, floor)]
    if min(values) > 0 and max(values) > WIDE * min(values):
        axes.set_xscale("log")
        axes.set_xlabel(f"{label}, log scale")
    else:
        axes.set_xlim(left=0)
        axes.set_xlabel(label)
    axes.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return True


def against_active(axes: Axes, table: Table) -> bool:
    """Excess as a share of what the pair says, and its floor, against `max_experts`; rows differ in nothing else."""
    lines: dict[str, list[tuple[int, Row]]] = defaultdict(list)
    for row in table.rows:
        said = RowName.of(row.system)
        active = said.subject.settings.get("max_experts")
        if active is not None and SHARE in row.metrics and FLOOR_SHARE in row.metrics:
            lines[str(said.without("max_experts"))].append((active, row))
    lines = {family: points for family, points in lines.items() if len(points) > 1}
    if not lines:
        return False
    for place, (family, points) in enumerate(lines.items()):
        points.sort(key=lambda point: point[0])
        colour = COLOURS[place % len(COLOURS)]
        for metric, name, style in ((SHARE, family, "-"), (FLOOR_SHARE, f"{family}: random directions", "--")):
            axes.errorbar(
                [active for active, _ in points],
                [row.metrics[metric].value for _, row in points],
                yerr=_bars([row.metrics[metric] for _, row in points]),
                color=colour,
                marker=MARKERS[place % len(MARKERS)],
                linestyle=style,
                capsize=2,
                label=name,
            )
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("active experts a token and layer, at most")
    axes.set_ylabel("excess, share of what the pair says")
    axes.legend(frameon=False, fontsize=8)
    return True


def _bars(figures: list[Figure]) -> list[list[float]]:
    ends = [error(figure) or [[0.0], [0.0]] for figure in figures]
    return [[end[0][0] for end in ends], [end[1][0] for end in ends]]
