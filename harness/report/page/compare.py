"""One page that sets results folders beside each other: other commits, budgets, machines. Says first what makes them
differ in kind, then which figures differ by more than their intervals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import hypot, inf
from pathlib import Path

import jinja2
from markupsafe import Markup

from harness.base.errors import BadInput
from harness.base.files import write_atomically
from harness.report.page.render import code
from harness.tables.cells import cell, figure_cell, heading
from harness.tables.columns import families
from harness.tables.table import Figure, Table

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Named:
    """A table under the name that the page gives it."""

    name: str
    table: Table


@dataclass(frozen=True)
class Moved:
    """A figure of one row in two tables. times: the difference over the half width of its 95% interval; infinite where
    neither varies."""

    system: str
    metric: str
    before: str
    after: str
    first: str
    second: str
    difference: str
    times: float


def write(tables: Sequence[Named], path: Path) -> Path:
    """Raises BadInput where the tables share no row."""
    shared = [row.system for row in tables[0].table.rows if all(_has(one.table, row.system) for one in tables[1:])]
    if not shared:
        raise BadInput(f"{', '.join(one.name for one in tables)} have no row in common; nothing to compare")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["code"] = code
    found = moved(tables)
    text = environment.from_string((_HERE / "compare.html").read_text(encoding="utf-8")).render(
        tables=tables,
        warnings=list(unlike(tables)),
        exceed=[one for one in found if 1 < one.times < inf],
        exact=[one for one in found if one.times == inf],
        compared=len(found),
        families=list(_families(tables, shared)),
        css=Markup((_HERE / "page.css").read_text(encoding="utf-8")),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.encode())
    return path


def unlike(tables: Sequence[Named]) -> Iterator[str]:
    """What must be alike for a difference to mean what it seems to."""
    for what, of in (
        ("corpus", lambda t: t.provenance.corpus_hash[:12]),
        ("budget", lambda t: t.provenance.matched or "not stated"),
        ("settings", lambda t: t.provenance.config_hash[:12]),
        ("code", _code),
        ("machine", lambda t: t.provenance.hardware.gpu or t.provenance.hardware.cpu),
        ("seeds", lambda t: str(sorted({len(row.seeds) for row in t.rows if row.kind != "reference"}))),
        ("evaluation", _evaluation),
    ):  # fmt: skip
        said = {one.name: of(one.table) for one in tables}
        if len(set(said.values())) > 1:
            yield f"They differ in {what}: " + "; ".join(f"`{name}` {value}" for name, value in said.items()) + "."
    names = [{row.system for row in one.table.rows} for one in tables]
    if alone := sorted(set.union(*names) - set.intersection(*names)):
        yield "Not in all of them: " + ", ".join(f"`{system}`" for system in alone) + "."
    versions: dict[str, set[int]] = {}
    for one in tables:
        for row in one.table.rows:
            for metric, figure in row.metrics.items():
                versions.setdefault(metric, set()).add(figure.version)
    if changed := sorted(metric for metric, found in versions.items() if len(found) > 1):
        yield (
            "Their meaning changed in between, so they are not compared: " + ", ".join(f"`{m}`" for m in changed) + "."
        )


def moved(tables: Sequence[Named]) -> list[Moved]:
    """Every figure that two tables beside each other share, those that differ most first; what is timed is left out."""
    found = []
    for first, second in pairwise(tables):
        for row in first.table.rows:
            other = next((one for one in second.table.rows if one.system == row.system), None)
            for metric, before in row.metrics.items():
                after = None if other is None else other.metrics.get(metric)
                if after is None or after.timing or after.version != before.version:
                    continue
                found.append(_moved(row.system, metric, first.name, second.name, before, after))
    return sorted(found, key=lambda one: (-one.times, one.metric, one.system))


def _moved(system: str, metric: str, first: str, second: str, before: Figure, after: Figure) -> Moved:
    apart, half = after.value - before.value, hypot(_half(before), _half(after))
    times = abs(apart) / half if half else (inf if apart else 0.0)
    sign = "+" if apart > 0 else ""
    return Moved(
        system,
        metric,
        cell(before.value, before.low, before.high),
        cell(after.value, after.low, after.high),
        first,
        second,
        sign + cell(apart, apart - half, apart + half),
        times,
    )


def _half(figure: Figure) -> float:
    return 0.0 if figure.low is None or figure.high is None else (figure.high - figure.low) / 2


def _has(table: Table, system: str) -> bool:
    return any(row.system == system for row in table.rows)


def _code(table: Table) -> str:
    made = table.provenance
    return (made.commit or "unknown")[:10] + (" with uncommitted changes" if made.dirty else "")


def _evaluation(table: Table) -> str:
    texts = {figure.saw for row in table.rows for figure in row.metrics.values() if figure.saw}
    return "; ".join(sorted(texts)) or "not stated"


def _families(
    tables: Sequence[Named], shared: Sequence[str]
) -> Iterator[tuple[str, list[str], list[tuple[str, str, list[str]]]]]:
    """Family, headings, and for every shared row and table a line."""
    for name, metrics in families(tables[0].table):
        lines = []
        for system in shared:
            for one in tables:
                row = next(row for row in one.table.rows if row.system == system)
                if any(metric in row.metrics for metric in metrics):
                    lines.append((system, one.name, [figure_cell(row, metric) for metric in metrics]))
        yield name, [heading(tables[0].table, metric) for metric in metrics], lines
