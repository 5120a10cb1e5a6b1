"""The units that the page shows: reports of them as the run left them, with what auto-interpretation says of each.

A system's reports are deflated and opened in the browser when they are asked for.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from harness.report.page.content import rounded
from harness.tables.folder import details_folder
from harness.tables.roads import is_control
from harness.tables.table import Row, Table

FILE = "units.json"
EXPLAINED = "autointerp/units.parquet"
SCHEMA = 1
MOST_BYTES = 7_500_000  # of all systems' reports in one page, as they stand there


PAIRS = 10  # of all systems together


@dataclass(frozen=True)
class Pair:
    """Two units and what they say together, in bits. with_report: whether the page has the second one's too."""

    system: str
    layer: str
    unit: int
    with_layer: str
    with_unit: int
    excess: float
    floor: float
    with_report: bool = False

    @property
    def above(self) -> float:
        return rounded(self.excess - self.floor) or 0.0

    @property
    def address(self) -> str:
        """Of the pair in the first one's report."""
        first, second = f"{self.layer}/{self.unit}", f"{self.with_layer}/{self.with_unit}"
        return f"#unit/{quote(self.system, safe='')}/{first}/pair/{second}"

    @property
    def with_address(self) -> str:
        return f"#unit/{quote(self.system, safe='')}/{self.with_layer}/{self.with_unit}"


@dataclass(frozen=True)
class SystemUnits:
    """One system's reports. packed: JSON, deflated (zlib), in base64. pairs: those that joint edited, each once."""

    system: str
    n_units: int
    packed: str
    pairs: tuple[Pair, ...] = ()


def collect(table: Table, results: Path) -> list[SystemUnits]:
    """Of every row whose details are there. Those that no longer fit are left out, the last rows first; `left_out`
    names them."""
    found, size = [], 0
    for row in table.rows:
        if row.kind == "reference" or (reports := of_row(row, results)) is None:
            continue
        packed = base64.b64encode(zlib.compress(json.dumps(reports, ensure_ascii=False).encode(), 9)).decode()
        size += len(packed)
        shown = packed if size <= MOST_BYTES else ""
        found.append(SystemUnits(row.system, len(reports["units"]), shown, tuple(_pairs(reports))))
    return found


def strongest(units: Sequence[SystemUnits]) -> list[Pair]:
    """Of all systems, the furthest above its floor first."""
    return sorted((pair for one in units for pair in one.pairs), key=lambda pair: -pair.above)[:PAIRS]


def _pairs(reports: dict[str, Any]) -> Iterator[Pair]:
    seen, reported = set(), {(unit["site"], unit["unit"]) for unit in reports["units"]}
    for unit in reports["units"]:
        for other in unit["partners"]:
            key = frozenset([(unit["site"], unit["unit"]), (other["site"], other["unit"])])
            if other.get("excess") is not None and key not in seen:
                seen.add(key)
                layers = (site.rsplit(".", 1)[-1] for site in (unit["site"], other["site"]))
                figures = (rounded(other[name]) or 0.0 for name in ("excess", "floor"))
                first, second = layers
                known = (other["site"], other["unit"]) in reported
                yield Pair(reports["system"], first, unit["unit"], second, other["unit"], *figures, with_report=known)


def best_untrained(table: Table, units: Sequence[SystemUnits]) -> list[Pair]:
    """Of every system that learnt nothing, the pair furthest above its floor: what extremes are worth."""
    controls = {row.system for row in table.rows if is_control(row)}
    return [max(one.pairs, key=lambda pair: pair.above) for one in units if one.system in controls and one.pairs]


def left_out(table: Table, units: Sequence[SystemUnits]) -> list[str]:
    """System, how many reports, and the file that has them."""
    seeds = {row.system: row.seeds[0] for row in table.rows}
    return [
        f"{one.system} ({one.n_units} units: {details_folder(Path(), one.system, seeds[one.system]) / FILE})"
        for one in units
        if not one.packed
    ]


def of_row(row: Row, results: Path) -> dict[str, Any] | None:
    """The reports of the row's first seed, each with its explanation; None where the folder has none."""
    folder = details_folder(results, row.system, row.seeds[0])
    path = folder / FILE
    if not path.is_file():
        return None
    reports = json.loads(path.read_text(encoding="utf-8"))
    if reports.get("schema") != SCHEMA:
        return None
    said = dict(_explained(folder / EXPLAINED))
    for unit in reports["units"]:
        unit["said"] = said.get((unit["site"], unit["unit"]))
        if unit["said"] is not None:
            unit.pop("explanation", None)  # the same text with fewer scores
    return reports


def _explained(path: Path) -> Iterator[tuple[tuple[str, int], dict[str, Any]]]:
    """(site, unit) -> explanation, who gave it, its scores and those of its controls."""
    if not path.is_file():
        return
    import pyarrow.parquet

    for row in pyarrow.parquet.read_table(path).to_pylist():
        names = list(row)
        scores = names[names.index("by") + 1 : names.index("promoted")]
        yield (
            (row["site"], row["unit"]),
            {
                "text": row["explanation"],
                "by": row["by"],
                "scores": {name: round(row[name], 3) for name in scores if row[name] is not None},
            },
        )
