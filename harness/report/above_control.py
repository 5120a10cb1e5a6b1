"""Figures that are real minus control, or real over control: a panel each, with a rule where there is nothing."""

from __future__ import annotations

from harness.report.drawing import Drawing, forest, record
from harness.report.style import marks, rows_with
from harness.tables.build import nothing_real
from harness.tables.cells import heading
from harness.tables.roads import is_control
from harness.tables.table import Table

_ALSO = ("joint/excess_above_floor",)  # drawn though no experiment has it for a headline


def draw(table: Table) -> list[Drawing]:
    """Those among the table's headline figures; untrained rows below the rest."""
    found, looks = [], marks(table)
    for metric in dict.fromkeys((*table.headline, *_ALSO)):
        rows = sorted(rows_with(table, metric), key=is_control)
        nothing = 0.0 if metric in _ALSO else nothing_real(metric)
        if rows and nothing is not None:
            records = [record(looks, row, {"x": metric}) for row in rows]
            drawn = forest(table, records, heading(table, metric), nothing)
            says = f"Dashed ({nothing:g}): the real thing is what its control is. 95% intervals."
            name = metric.replace("/", "_")
            found.append(
                Drawing(name, f"Real against control: {metric.split('/', 1)[1].replace('_', ' ')}", says, drawn)
            )
    return found
