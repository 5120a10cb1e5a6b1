"""report.html of a results folder, from its table, its drawings and what its details folder holds.

Deterministic: the same folder gives the same bytes on the same versions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import vl_convert
from markupsafe import Markup, escape

from harness.base.files import write_atomically
from harness.report.drawing import Drawing
from harness.report.page import units as unit_reports
from harness.report.page.content import content
from harness.report.page.scoreboard import doubts, scoreboard
from harness.report.page.units import SystemUnits
from harness.tables.cells import figure_cell, heading, seen
from harness.tables.columns import families
from harness.tables.table import Table
from harness.tables.verdict import verdict
from harness.tables.warnings import warnings

FILE = "report.html"
_HERE = Path(__file__).parent
_SCRIPTS = ("page.js", "scoreboard.js", "explore.js", "units.js")
_GEOMETRY = re.compile(r'(?<= )(d|transform|x|x1|x2|y|y1|y2|points|width|height)="[^"]*"')
_LONG = re.compile(r"(-?\d+\.\d{2})\d+")
_TRAINING = "training"  # how names of drawings of curves begin


@dataclass(frozen=True)
class _Badge:
    text: str
    warns: bool = False


@dataclass(frozen=True)
class _Picture:
    name: str
    title: str
    subtitle: str
    svg: Markup


def write(table: Table, drawn: Sequence[Drawing], results: Path, path: Path | None = None) -> Path:
    """Writes the page into `results`, or to `path`, and returns where it is."""
    path = path or results / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, page(table, drawn, unit_reports.collect(table, results)).encode())
    return path


def page(table: Table, drawn: Sequence[Drawing], units: Sequence[SystemUnits]) -> str:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["code"] = code
    pictures = [_Picture(one.name, one.title, one.subtitle, _svg(one)) for one in drawn]
    first = next((one for one in pictures if one.name == "difference"), None)
    training = [one for one in pictures if one.name.startswith(_TRAINING)]
    return environment.from_string((_HERE / "page.html").read_text(encoding="utf-8")).render(
        table=table,
        verdict=verdict(table),
        warnings=warnings(table),
        badges=_badges(table),
        first=first,
        training=training,
        figures=[one for one in pictures if one is not first and one not in training],
        board=scoreboard(table),
        families=_families(table),
        provenance=_provenance(table),
        units=units,
        pairs=unit_reports.strongest(units),
        untrained_pairs=unit_reports.best_untrained(table, units),
        doubts={row.system: doubts(row) for row in table.rows},
        left_out=unit_reports.left_out(table, units),
        content=_json(content(table)),
        css=Markup((_HERE / "page.css").read_text(encoding="utf-8")),
        vega=Markup(vl_convert.javascript_bundle()),  # pyright: ignore[reportCallIssue] (its snippet has a default)
        scripts=[Markup((_HERE / name).read_text(encoding="utf-8")) for name in _SCRIPTS],
    )


def code(text: str) -> Markup:
    """What stands in backticks as code; everything is escaped."""
    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(text))))


def _json(value: Any) -> Markup:
    """JSON that can stand in a script element: nothing in it ends the element."""
    return Markup(json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"))


def _svg(drawing: Drawing) -> Markup:
    """The picture, places in it with two decimals; its title stands in the caption."""
    text = _GEOMETRY.sub(lambda found: _LONG.sub(r"\1", found[0]), drawing.svg())
    return Markup(text.replace("<svg ", f'<svg role="img" aria-label="{escape(drawing.title)}" ', 1))


def _badges(table: Table) -> list[_Badge]:
    rows = [row for row in table.rows if row.kind != "reference"]
    least = min((len(row.seeds) for row in rows), default=0)
    made = table.provenance
    loose = sum(any(note.startswith("not converged") for note in row.notes) for row in rows)
    found = [_Badge(f"{least} seed{'' if least == 1 else 's'}", least < 2)]
    if made.matched:
        found.append(_Badge(f"matched: {made.matched}"))
    if loose:
        found.append(_Badge(f"{loose} of {len(rows)} rows not converged", True))
    if made.dirty:
        found.append(_Badge("uncommitted changes", True))
    return [*found, _Badge(f"commit {(made.commit or 'unknown')[:10]}")]


def _families(table: Table) -> list[dict[str, Any]]:
    found = []
    for name, metrics in families(table):
        rows = [row for row in table.rows if any(metric in row.metrics for metric in metrics)]
        found.append(
            {
                "name": name,
                "headings": [heading(table, metric) for metric in metrics],
                "rows": [(row.system, [figure_cell(row, metric) for metric in metrics]) for row in rows],
                "saw": seen(table, metrics),
            }
        )
    return found


def _provenance(table: Table) -> list[tuple[str, str]]:
    made, machine = table.provenance, table.provenance.hardware
    dirty = " with uncommitted changes" if made.dirty else ""
    return [
        ("code", f"commit {made.commit or 'unknown'}{dirty}"),
        ("experiment", f"config {made.config_hash[:12]}, corpus {made.corpus_hash[:12]}"),
        ("machine", f"{made.device}, {made.dtype}, {made.threads} threads; {machine.cpu}, {machine.cores} cores"),
        ("software", f"Python {made.python}, " + ", ".join(f"{name} {v}" for name, v in made.packages.items())),
    ]
