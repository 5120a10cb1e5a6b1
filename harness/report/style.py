"""What all figures share."""

from __future__ import annotations

from harness.tables.table import Figure

# Okabe and Ito's palette: told apart by colour-blind readers too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"
GREY = "#777777"


def error(figure: Figure) -> list[list[float]] | None:
    """A figure's interval as matplotlib wants it, relative to the value; None without one."""
    if figure.low is None or figure.high is None:
        return None
    return [[max(0.0, figure.value - figure.low)], [max(0.0, figure.high - figure.value)]]
