"""What the page's scripts know of a comparison: every figure of every row, and how rows look."""

from __future__ import annotations

from typing import Any

from harness.report.style import GREY, marks, sweep
from harness.tables.build import nothing_real
from harness.tables.cells import base, cell, heading
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
                "own": own_results(table, row),
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


def own_results(table: Table, row: Row) -> list[str]:
    """What the row's figures with a control in them say of all its units: those of the headline, else all that it has,
    which get no verdict. The loss has none."""
    able = [name for name in row.metrics if nothing_real(name) is not None]
    return [_own(table, row, name) for name in ([n for n in table.headline if n in able] or able)]


def _own(table: Table, row: Row, name: str) -> str:
    figure = row.metrics[name]
    says = {
        "above": "above its control",
        "below": "below its control",
        "unresolved": "not told from its control",
        None: "no verdict: one seed" if len(row.seeds) == 1 else "no verdict: not a headline figure",
    }[figure.against_control]
    return f"{heading(table, name).rstrip(' ↓↑')} {cell(figure.value, figure.low, figure.high)}, {says}"


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
