"""Descriptions that MLflow shows on an experiment, an invocation and a row.

The first line is plain text, since lists show markdown raw; what matters stands in the first four, where it folds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from harness.tables.build import SeedResult
from harness.tables.cells import number, short_name, title
from harness.tables.counts import NAMES
from harness.tables.headline import columns, grouped
from harness.tables.measurement import Measurement
from harness.tables.splice import NATIVE, SPLICED
from harness.tables.table import Table
from harness.tables.verdict import verdict
from harness.tables.warnings import warnings

_LONGEST = 7900  # MLflow cuts a tag of a run after 8000
_IN_A_LINE = 4


def of_comparison(table: Table, links: Mapping[str, str]) -> str:
    """The verdict, where to look, then question, warnings and headline. links: name of a chart view → its address."""
    first, *rest = verdict(table) or [_no_verdict(table)]
    lines = [_plain(first), "", *(f"- {sentence}" for sentence in rest), *([""] if rest else [])]
    if links:
        lines += ["Charts: " + " · ".join(f"[{name}]({link})" for name, link in links.items()), ""]
    if table.question:
        lines += [table.question, ""]
    lines += [*_headline(table), "", *(f"- {sentence}" for sentence in warnings(table))]
    return _whole_lines(lines)


def of_row(result: SeedResult, headline: Sequence[str]) -> str:
    """Its main figures in a line, then what else is said of it."""
    found = {m.name: m for m in result.measurements if math.isfinite(m.value)}
    units = next((name for name in NAMES if name in found), "")
    loss = SPLICED if SPLICED in found else NATIVE
    wanted = [name for name in dict.fromkeys((loss, units, *headline, "usage/dead")) if name in found]
    figures = ", ".join(_figure(found[name]) for name in wanted[:_IN_A_LINE])
    notes = [result.unmatched and f"not matched: {result.unmatched}", result.accounting, *result.notes]
    return _whole_lines([f"{result.system}, seed {result.seed}: {figures}", "", *(f"- {n}" for n in notes if n)])


def _figure(measured: Measurement) -> str:
    name = short_name(measured.name)
    unit = f" {measured.unit}" if measured.unit else ""
    return f"{name} {number(measured.value, None)}{unit}"


def _no_verdict(table: Table) -> str:
    """The losses instead, the lowest first."""
    losses = {row.system: row.metrics[SPLICED].value for row in table.rows if SPLICED in row.metrics}
    known = ", ".join(f"{system} {number(losses[system], None)}" for system in sorted(losses, key=losses.__getitem__))
    seeds = max((len(row.seeds) for row in table.rows), default=0)
    why = "No verdict, with one seed" if seeds == 1 else "No verdict, without a headline figure"
    return f"{why}. {title(table, SPLICED)}: {known}." if known else f"{why}."


def _plain(text: str) -> str:
    return text.replace("`", "")


def _headline(table: Table) -> Iterator[str]:
    shown = columns(table)
    yield "| " + " | ".join(["system", *(column.heading for column in shown)]) + " |"
    yield "|" + " --- |" * (len(shown) + 1)
    for group in grouped(table):
        for row in group.rows:
            cells = [f"`{row.system}`", *(column.cell(row) for column in shown)]
            yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _whole_lines(lines: Sequence[str]) -> str:
    """As many lines as MLflow takes."""
    text = "\n".join(lines).strip()
    if len(text) <= _LONGEST:
        return text
    more = "\n\nMore: table.md among the artifacts."
    cut = text[: _LONGEST - len(more)]
    return (cut.rpartition("\n")[0] or cut) + more
