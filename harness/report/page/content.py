"""What the page's scripts know of a comparison: every figure of every row, and how rows look."""

from __future__ import annotations

from typing import Any

from harness.report.style import GREY, marks, sweep
from harness.tables.cells import base, heading
from harness.tables.columns import TIMED, families
from harness.tables.counts import COUNTS
from harness.tables.headline import front, grouped
from harness.tables.roads import road
from harness.tables.table import Figure, Row, Table


def content(table: Table) -> dict[str, Any]:
    """As JSON can hold it. Numbers have six significant digits."""
    looks, on_front = marks(table), front(table)[1]
    groups = {row.system: group.title for group in grouped(table) for row in group.rows}
    return {
        "rows": [
            {
                "system": row.system,
                "kind": row.kind,
                "road": road(row),
                "group": groups[row.system],
                "curve": sweep(row.system) if row.kind != "reference" else row.system,
                "accounting": row.accounting,
                "matched": row.unmatched is None,
                "front": row.system in on_front,
                **_look(table, row, looks),
                "seeds": row.seeds,
                "figures": {name: _figure(figure) for name, figure in row.metrics.items()},
            }
            for group in grouped(table)
            for row in group.rows
        ],
        "families": [
            {"name": name, "metrics": [{"name": m, "heading": heading(table, m)} for m in metrics]}
            for name, metrics in families(table)
            if name != TIMED
        ],
        "counts": [{"value": count.metric, "text": count.axis} for count in COUNTS],
        "baseline": base(table) or None,
        "differences": _differences(table),
    }


def _look(table: Table, row: Row, looks: Any) -> dict[str, str]:
    if row.system not in looks:
        return {"colour": GREY, "shape": "cross"}
    return {"colour": looks[row.system].colour, "shape": looks[row.system].shape}


def _figure(figure: Figure) -> list[Any]:
    """[value, low, high, [one a seed]]"""
    return [*map(rounded, (figure.value, figure.low, figure.high)), [rounded(seed) for seed in figure.seeds]]


def _differences(table: Table) -> dict[str, dict[str, list[Any]]]:
    """metric -> system -> [the row it is compared with, value, low, high, verdict]"""
    found: dict[str, dict[str, list[Any]]] = {}
    for d in table.differences:
        found.setdefault(d.metric, {})[d.a] = [d.b, *map(rounded, (d.value, d.low, d.high)), d.verdict]
    return found


def rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")
