"""A table for readers on GitHub: table.md, which opens with what it says, and details.md, which has every figure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.base.files import ROOT
from harness.tables.cells import base, difference_columns, figure_cell, has, heading, reasons, seen
from harness.tables.columns import TIMED, families, main
from harness.tables.headline import columns, front, grouped
from harness.tables.table import Provenance, Row, Table
from harness.tables.verdict import verdict
from harness.tables.warnings import warnings

READ_ME = (
    "Each figure is the mean over seeds with its 95% interval in brackets (over seeds and evaluation documents; "
    "documents alone where there is one seed; no brackets where neither varies). "
    "↓ lower is better, ↑ higher is better."
)
VERDICTS = (
    "Verdicts stand on headline figures with several seeds, and at most 5% of those that resolve anything are wrong by "
    "chance (Benjamini-Hochberg over all of them); elsewhere an interval that holds 0 resolves nothing."
)
_ANOTHER_TIME = "These differ between runs and machines; everything else is the same again on the same machine."


def markdown(table: Table, folder: Path | None = None) -> str:
    """table.md: question, verdict, warnings, the headline, then the families, at most ten figures each.

    folder: where it lies, for the command that makes it again.
    """
    lines = [f"# {table.comparison}", ""]
    if table.question:
        lines += [table.question, ""]
    lines += _listed("Verdict", verdict(table)) + _listed("Warnings", warnings(table))
    lines += [f"{READ_ME} {VERDICTS}", "", *_headline(table)]
    cut = False
    for family, metrics in families(table):
        shown = main(family, metrics, table.headline)
        cut |= len(shown) < len(metrics)
        lines += _family(table, family, shown)
    if cut or table.differences:
        lines += ["", "More of each, and every difference: [details.md](details.md)."]
    lines += ["", "## rows", ""]
    rows = [[f"`{r.system}`", r.kind, _seeds(r), "; ".join(r.notes)] for r in table.rows]
    lines += _pipe_table(["system", "kind", "seeds", "notes"], rows, right=False)
    return "\n".join([*lines, *_provenance(table, folder)]) + "\n"


def details(table: Table) -> str:
    """details.md: every figure of every family, why others are missing, and every difference."""
    lines = [f"# {table.comparison}: every figure", "", f"{READ_ME} In short: [table.md](table.md)."]
    for family, metrics in families(table):
        lines += _family(table, family, metrics)
        rows = [r for r in table.rows if has(r, metrics)]
        if why := reasons(rows, metrics):
            lines += ["", *(f"- {reason}" for reason in why)]
    if whys := [line for name in table.metric_names() for line in _missing(table, name)]:
        lines += ["", "## without a figure", "", *(f"- {line}" for line in dict.fromkeys(whys))]
    if across := difference_columns(table):
        lines += ["", f"## difference from `{base(table)}`", ""]
        lines += [f"System minus `{base(table)}`, on the same documents. {VERDICTS}", ""]
        header, *rows = zip(*across, strict=True)
        lines += _pipe_table(header, [[f"`{system}`", *map(_unbroken, cells)] for system, *cells in rows])
    return "\n".join(lines) + "\n"


def _listed(what: str, sentences: Sequence[str]) -> list[str]:
    return [f"**{what}**", "", *(f"- {sentence}" for sentence in sentences), ""] if sentences else []


def _headline(table: Table) -> Iterator[str]:
    """Rows by road, each group under a line of its own; the Pareto front is marked."""
    shown = columns(table)
    if not shown:
        return
    units, on_front = front(table)
    header = ["system", *(column.heading for column in shown)]
    rows: list[list[str]] = []
    for group in grouped(table):
        rows.append([f"**{group.title}**", *("" for _ in shown)])
        for row in group.rows:
            mark = " ◆" if row.system in on_front else ""
            rows.append([f"`{row.system}`{mark}", *(_unbroken(column.cell(row)) for column in shown)])
    yield from _pipe_table(header, rows)
    yield ""
    if units is not None:
        yield f"◆ no other row has both a lower loss and fewer units ({units.axis})."


def _family(table: Table, family: str, metrics: Sequence[str]) -> list[str]:
    lines = ["", f"## {family}", ""]
    if family == TIMED:
        lines += [_ANOTHER_TIME, ""]
    rows = [[f"`{r.system}`", *(_unbroken(figure_cell(r, m)) for m in metrics)] for r in table.rows if _any(r, metrics)]
    lines += _pipe_table(["system", *(heading(table, m) for m in metrics)], rows)
    if texts := seen(table, metrics):
        lines += ["", f"Measured on {'; '.join(texts)}."]
    return lines


def _missing(table: Table, metric: str) -> list[str]:
    """Why no row has the figure, where none has."""
    if any(metric in row.metrics for row in table.rows):
        return []
    whys = dict.fromkeys(row.not_applicable[metric] for row in table.rows if metric in row.not_applicable)
    return [f"{metric}: {why}" for why in whys]


def _any(row: Row, metrics: Sequence[str]) -> bool:
    return any(metric in row.metrics for metric in metrics)


def _seeds(row: Row) -> str:
    return f"{len(row.seeds)} seed{'s' if len(row.seeds) != 1 else ''}"


def _unbroken(text: str) -> str:
    """A figure and its interval stay on one line; a word behind them may go to the next."""
    figure, bracket, behind = text.partition("]")
    return figure.replace(" ", "\N{NO-BREAK SPACE}") + bracket + behind if bracket and "[" in figure else text


def _pipe_table(header: Sequence[str], rows: Sequence[Sequence[str]], right: bool = True) -> list[str]:
    align = ["---", *(["---:" if right else "---"] * (len(header) - 1))]
    return [f"| {' | '.join(line)} |" for line in ([c.replace("|", "\\|") for c in r] for r in (header, align, *rows))]


def _again(provenance: Provenance, folder: Path | None) -> str:
    """The command that makes the table again, from the checkout's root. A folder outside it stays unnamed: a table
    names no path of a machine."""
    place = folder.resolve() if folder is not None else None
    inside = place is not None and place != ROOT and place.is_relative_to(ROOT)
    where = "" if inside else ", in this folder"
    shown = place.relative_to(ROOT).as_posix() if place is not None and inside else "."
    file = f"{shown}/experiment.yaml" if inside else "experiment.yaml"
    numerics = f"--device {provenance.device}"
    if provenance.dtype != "float32":
        numerics += f" --dtype {provenance.dtype}"
    run = f"OMP_NUM_THREADS={provenance.threads} harness run {file} {numerics}"
    return f"- again{where}: `{run}`; compared with this: `harness verify {shown}`"


def _provenance(table: Table, folder: Path | None) -> list[str]:
    p, h = table.provenance, table.provenance.hardware
    dirty = " with uncommitted changes" if p.dirty else ""
    lines = [
        "",
        "## provenance",
        "",
        _again(p, folder),
        f"- commit {p.commit or 'unknown'}{dirty}, config {p.config_hash[:12]}, corpus {p.corpus_hash[:12]}",
        f"- {p.device}, {p.dtype}, {p.threads} threads; {h.cpu}, {h.cores} cores, {h.memory_gib:.0f} GiB"
        + (f", {h.gpu}" if h.gpu else ""),
        f"- Python {p.python}, {p.os}; " + ", ".join(f"{name} {v}" for name, v in p.packages.items()),
    ]
    if p.matched is not None:
        lines.append(f"- matched: {p.matched}")
    ran: dict[str, list[str]] = {}
    for row in table.rows:
        if row.provenance.kernels:
            which = ", ".join(f"{op}: {implementation}" for op, implementation in row.provenance.kernels.items())
            ran.setdefault(which, []).append(f"`{row.system}`")
    return [*lines, *(f"- kernels of {', '.join(systems)}: {which}" for which, systems in ran.items())]
