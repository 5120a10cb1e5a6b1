"""The figure of `kept`: loss against how many units write, a line a system."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from harness.report.style import COLOURS, GREY, MARKERS
from harness.tables.table import Row, Table

PREFIX = "kept/bits_per_byte_k"


def against_k(axes: Axes, table: Table) -> bool:
    """Bits per byte when each token keeps its k strongest units in every layer; the band is the 95% interval."""
    rows = [row for row in table.rows if any(name.startswith(PREFIX) for name in row.metrics)]
    for place, row in enumerate(rows):
        ks, values, low, high = _curve(row)
        colour = COLOURS[place % len(COLOURS)]
        axes.plot(ks, values, color=colour, marker=MARKERS[place % len(MARKERS)], markersize=4, label=row.system)
        axes.fill_between(ks, low, high, color=colour, alpha=0.12, linewidth=0)
    if not rows:
        return False
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("units that write, a token and layer: the k strongest")
    axes.set_ylabel("bits per byte")
    axes.grid(axis="y", color=GREY, alpha=0.2)
    axes.legend(frameon=False, fontsize=8)
    return True


def _curve(row: Row) -> tuple[list[int], np.ndarray, np.ndarray, np.ndarray]:
    ks = sorted(int(name.removeprefix(PREFIX)) for name in row.metrics if name.startswith(PREFIX))
    figures = [row.metrics[f"{PREFIX}{k}"] for k in ks]
    ends = [(f.value if f.low is None else f.low, f.value if f.high is None else f.high) for f in figures]
    low, high = np.array(ends).T
    return ks, np.array([f.value for f in figures]), low, high
