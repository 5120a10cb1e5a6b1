"""A table as Markdown (GitHub), CSV (wide) and in the terminal (rich).

Numbers are rounded to what their interval supports; table.json keeps them whole.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable
from rich.text import Text

from harness.tables.answers import answers
from harness.tables.table import Difference, Figure, Row, Table

_ARROWS = {"lower": "↓", "higher": "↑", "none": ""}
_READ_ME = (
    "Each figure is the mean over seeds with its 95% interval in brackets (over seeds and evaluation documents; "
    "documents alone where there is one seed; no brackets where neither varies). "
    "↓ lower is better, ↑ higher is better."
)

_VERDICTS = (
    "Verdicts stand on headline figures with several seeds, and at most 5% of those that resolve anything are wrong by "
    "chance (Benjamini-Hochberg over all of them); elsewhere an interval that holds 0 resolves nothing."
)
_ONE_SEED = (
    "Rows with one seed get no verdict: their interval is that of these very weights on other documents, and trained "
    "anew with another seed they may differ by more."
)


def _number(value: float, decimals: int | None) -> str:
    """`decimals` None: four significant digits; whole numbers in full up to 10 digits."""
    if value == 0:
        return "0"
    size = abs(value)
    if float(value).is_integer() and size < 1e10 and not decimals:
        return f"{value:,.0f}"
    if size >= 1e10 or size < 1e-4:
        mantissa, exponent = f"{value:.3e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    if decimals is None:
        text = f"{value:,.{max(0, 3 - math.floor(math.log10(size)))}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return f"{value:,.{decimals}f}"


def _decimals(low: float | None, high: float | None) -> int | None:
    """Decimals at which the half width of the interval shows two significant digits."""
    if low is None or high is None or high - low <= 1e-9 * max(abs(low), abs(high)):  # rounding error is no width
        return None
    return max(0, 1 - math.floor(math.log10((high - low) / 2)))


def cell(value: float, low: float | None, high: float | None) -> str:
    """`1.863 [1.842, 1.884]`, or the value alone."""
    decimals = _decimals(low, high)
    text = _number(value, decimals)
    if low is None or high is None or decimals is None:
        return text
    return f"{text} [{_number(low, decimals)}, {_number(high, decimals)}]"


def _figure_cell(row: Row, metric: str) -> str:
    figure = row.metrics.get(metric)
    return "n/a" if figure is None else cell(figure.value, figure.low, figure.high)


def _any_figure(table: Table, metric: str) -> Figure | None:
    return next((row.metrics[metric] for row in table.rows if metric in row.metrics), None)


def _heading(table: Table, metric: str) -> str:
    figure = _any_figure(table, metric)
    name = metric.split("/", 1)[-1].replace("_", " ")
    if figure is None:
        return name
    told = not figure.unit or name.lower().endswith(figure.unit.lower())
    unit = "" if told else f" ({figure.unit})"
    return f"{name}{unit} {_ARROWS[figure.direction]}".rstrip()


def _families(table: Table) -> list[tuple[str, list[str]]]:
    """Metrics by family, what is timed last and apart: only that differs between two equal runs."""
    families: dict[str, list[str]] = {}
    timed: list[str] = []
    for metric in table.metric_names():
        figure = _any_figure(table, metric)
        if figure is not None and figure.timing:
            timed.append(metric)
        else:
            families.setdefault(metric.split("/")[0], []).append(metric)
    named = list(families.items())
    return [*named, ("measured time and memory", timed)] if timed else named


def _reasons(rows: Sequence[Row], metrics: Sequence[str]) -> list[str]:
    """Why cells say n/a: one line for the systems and metrics that share a reason."""
    lines: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        reasons: dict[str, list[str]] = {}
        for metric in metrics:
            if metric not in row.metrics:
                why = row.not_applicable.get(metric, "not measured")
                reasons.setdefault(why, []).append(metric.split("/", 1)[-1].replace("_", " "))
        for why, names in reasons.items():
            lines.setdefault((", ".join(names), why), []).append(row.system)
    return [f"n/a ({names}) for {', '.join(systems)}: {why}" for (names, why), systems in lines.items()]


def _difference_columns(table: Table, family: str = "") -> list[list[str]]:
    """Systems down, metrics across, each cell with its verdict if it has one. Left out: what has no better or worse, or
    is exact.

    family: only metrics whose names begin so.
    """
    by_metric: dict[str, dict[str, Difference]] = {}
    for d in table.differences:
        by_metric.setdefault(d.metric, {})[d.a] = d
    columns, base = [], _base(table)
    for metric, by_system in by_metric.items():
        figure = _any_figure(table, metric) if metric.startswith(family) else None
        if figure is None or figure.direction == "none" or all(d.low == d.high for d in by_system.values()):
            continue
        cells = []
        for row in table.rows:
            d = by_system.get(row.system)
            if d is None or d.low is None or d.high is None:
                cells.append("")
                continue
            apart = "" if d.b == base else f" (from {d.b})"
            cells.append(f"{cell(d.value, d.low, d.high)} {d.verdict or ''}".rstrip() + apart)
        columns.append([_heading(table, metric), *cells])
    if not columns:
        return []
    columns.insert(0, ["system", *(row.system for row in table.rows)])
    lines = [line for line in zip(*columns, strict=True) if any(line[1:])]
    return [list(column) for column in zip(*lines, strict=True)]


def _base(table: Table) -> str:
    """The row that most are compared with."""
    others = [d.b for d in table.differences]
    return max(dict.fromkeys(others), key=others.count, default="")


def _seeds(row: Row) -> str:
    return f"{len(row.seeds)} seed{'s' if len(row.seeds) != 1 else ''}"


def _some_have_one_seed(table: Table) -> bool:
    """Of the rows that are trained; an n-gram model has no seed to vary."""
    return any(len(row.seeds) == 1 for row in table.rows if row.kind != "reference")


def _pipe_table(header: Sequence[str], rows: Sequence[Sequence[str]], right: bool = True) -> list[str]:
    align = ["---", *(["---:" if right else "---"] * (len(header) - 1))]
    return [f"| {' | '.join(line)} |" for line in ([c.replace("|", "\\|") for c in r] for r in (header, align, *rows))]


def markdown(table: Table) -> str:
    """The table for a reader on GitHub."""
    p = table.provenance
    lines = [f"# {table.comparison}", "", *(f"{line}\n" for line in answers(table)), _READ_ME, ""]
    rows = [[f"`{r.system}`", r.kind, _seeds(r), "; ".join(r.notes)] for r in table.rows]
    lines += _pipe_table(["system", "kind", "seeds", "notes"], rows, right=False)
    for family, metrics in _families(table):
        lines += ["", f"## {family}", ""]
        if family.startswith("measured"):
            lines += [
                "These differ between runs and machines; everything else is the same again on the same machine.",
                "",
            ]
        rows = [[f"`{r.system}`", *(_figure_cell(r, m) for m in metrics)] for r in table.rows if _has(r, metrics)]
        lines += _pipe_table(["system", *(_heading(table, m) for m in metrics)], rows)
        if seen := _seen(table, metrics):
            lines += ["", f"Measured on {'; '.join(seen)}."]
        reasons = _reasons([r for r in table.rows if _has(r, metrics)], metrics)
        if reasons:
            lines += ["", *(f"- {reason}" for reason in reasons)]
    columns = _difference_columns(table)
    if columns:
        base = _base(table)
        lines += ["", f"## difference from `{base}`", ""]
        lines += [f"System minus `{base}`, on the same documents. {_VERDICTS}", ""]
        if _some_have_one_seed(table):
            lines += [_ONE_SEED, ""]
        header, *rows = zip(*columns, strict=True)
        lines += _pipe_table(header, [[f"`{system}`", *cells] for system, *cells in rows])
    dirty = " with uncommitted changes" if p.dirty else ""
    h = p.hardware
    lines += ["", "## provenance", ""]
    lines += [
        f"- commit {p.commit or 'unknown'}{dirty}, config {p.config_hash[:12]}, corpus {p.corpus_hash[:12]}",
        f"- {p.device}, {p.dtype}, {p.threads} threads; {h.cpu}, {h.cores} cores, {h.memory_gib:.0f} GiB"
        + (f", {h.gpu}" if h.gpu else ""),
        f"- Python {p.python}, {p.os}; " + ", ".join(f"{name} {v}" for name, v in p.packages.items()),
    ]
    if p.matched is not None:
        lines.append(f"- matched: {p.matched}")
    for row in table.rows:
        if row.provenance.kernels:
            ran = ", ".join(f"{op}: {implementation}" for op, implementation in row.provenance.kernels.items())
            lines.append(f"- kernels of `{row.system}`: {ran}")
    return "\n".join(lines) + "\n"


def _seen(table: Table, metrics: Sequence[str]) -> list[str]:
    """What the figures of a family were measured on; more than one text where metrics or systems differ in it."""
    seen = (row.metrics[metric].saw for row in table.rows for metric in metrics if metric in row.metrics)
    return list(dict.fromkeys(text for text in seen if text is not None))


def _has(row: Row, metrics: Sequence[str]) -> bool:
    return any(m in row.metrics or m in row.not_applicable for m in metrics)


def csv_text(table: Table) -> str:
    """One line a system; for each metric its value, low and high (12 significant digits), the timed ones last."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    metrics = [m for _, family in _families(table) for m in family]
    writer.writerow(["system", "kind", "n_seeds", *(c for m in metrics for c in (m, f"{m}_low", f"{m}_high"))])
    for row in table.rows:
        cells: list[str] = []
        for metric in metrics:
            f = row.metrics.get(metric)
            ends = (None, None, None) if f is None else (f.value, f.low, f.high)
            cells += ["" if end is None else f"{end:.12g}" for end in ends]
        writer.writerow([row.system, row.kind, len(row.seeds), *cells])
    return out.getvalue()


def render(table: Table, console: Console) -> None:
    """Prints the table; a family too wide for the terminal is turned on its side, or cut where that is too wide too."""
    console.print(f"[bold]{escape(table.comparison)}[/bold]  {escape(_READ_ME)}", highlight=False)
    for line in answers(table):
        console.print(f"  {escape(line)}", highlight=False)
    for family, metrics in _families(table):
        rows = [r for r in table.rows if _has(r, metrics)]
        upright = [
            ["system", *(r.system for r in rows)],
            *([_heading(table, m), *(_figure_cell(r, m) for r in rows)] for m in metrics),
        ]  # columns
        on_side = [list(column) for column in zip(*upright, strict=True)]
        on_side[0][0] = "metric"
        columns = upright if _width(upright) <= console.width or _width(on_side) > console.width else on_side
        for part in _cut(columns, console.width):
            _print_columns(part, family, console)
        for reason in _reasons(rows, metrics):
            console.print(f"  {escape(reason)}", style="dim", highlight=False)
    columns = _difference_columns(table, "loss/")
    for part in _cut(columns, console.width):
        _print_columns(part, f"difference from {_base(table)} (of all figures: table.md)", console)
    if columns and _some_have_one_seed(table):
        console.print(f"  {_ONE_SEED}", style="dim", highlight=False)
    for row in table.rows:
        for note in row.notes:
            console.print(f"  {escape(row.system)}: {escape(note)}", style="dim", highlight=False)


def _lines(text: str) -> list[str]:
    """A figure keeps its value and its interval on one line each."""
    value, bracket, ends = text.partition(" [")
    return [value, f"[{ends}"] if bracket else [value]


def _column_width(column: Sequence[str]) -> int:
    """Headings wrap at spaces, figures do not. 3: what rich puts between columns."""
    words = column[0].split(" ")
    return max(1, *map(len, words), *(len(line) for text in column[1:] for line in _lines(text))) + 3


def _width(columns: Sequence[Sequence[str]]) -> int:
    return sum(_column_width(column) for column in columns) + 1


def _cut(columns: list[list[str]], width: int) -> list[list[list[str]]]:
    """Parts that fit, each beginning with the first column; no columns, no parts."""
    parts, part = [], columns[:1]
    for column in columns[1:]:
        if len(part) > 1 and _width([*part, column]) > width:
            parts.append(part)
            part = columns[:1]
        part.append(column)
    return [*parts, part] if part else []


def _print_columns(columns: Sequence[Sequence[str]], title: str, console: Console) -> None:
    grid = RichTable(title=Text(title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    whole = sum(max(len(text) for text in column) + 3 for column in columns) + 1 <= console.width
    for i, column in enumerate(columns):
        width = None if whole else _column_width(column) - 3  # left to itself rich crops figures to spare headings
        grid.add_column(Text(column[0]), justify="left" if i == 0 else "right", width=width)
    for line in zip(*(column[1:] for column in columns), strict=True):
        grid.add_row(*(Text(text if whole else "\n".join(_lines(text))) for text in line))
    console.print(grid)
