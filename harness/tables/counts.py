"""What counts the units that a token takes: one list, in one order, for the verdict, the front, the figures and MLflow.

Systems are matched on the first; the others describe what is written, and stand in for it where it was not measured.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.tables.columns import any_figure
from harness.tables.table import Row, Table


@dataclass(frozen=True)
class Count:
    """said: what stands behind the number in a sentence. axis: the same on an axis, with the name of the figure."""

    metric: str
    said: str
    axis: str


COUNTS = (
    Count(
        "kept/l0",
        "units a token and layer kept at +0.02 bits per byte",
        "units a token and layer, kept at +0.02 bits per byte (kept L0)",
    ),
    Count(
        "sparsity/strength_l0_total",
        "units a token, in all layers, that carry 95% of what is written",
        "units a token, in all layers, that carry 95% of what is written (strength-L0)",
    ),
    Count(
        "sparsity/l0",
        "active units a token and layer",
        "active units a token and layer (L0)",
    ),
)
NAMES = tuple(count.metric for count in COUNTS)


def of_table(table: Table) -> Count | None:
    """The first that some row has: all rows are compared by it."""
    return next((count for count in COUNTS if any_figure(table, count.metric) is not None), None)


def of_row(row: Row) -> Count | None:
    """The first that the row has."""
    return next((count for count in COUNTS if count.metric in row.metrics), None)
