"""The cells and headings of a table as text. Numbers are rounded to what their interval supports."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from harness.tables.columns import any_figure
from harness.tables.table import Difference, Row, Table

# Names in several families: the l0 of what is kept and of what is written, a row's FLOPs and its search's.
_SHARED = frozenset({"l0", "tokens", "training_flops", "units"})
_ARROWS = {"lower": "↓", "higher": "↑", "none": ""}


def number(value: float, decimals: int | None) -> str:
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
    if low is None or high is None or high - low <= 1e-6 * max(abs(low), abs(high)):  # rounding error is no width
        return None
    return max(0, 1 - math.floor(math.log10((high - low) / 2)))


def cell(value: float, low: float | None, high: float | None) -> str:
    """`1.863 [1.842, 1.884]`, or the value alone."""
    decimals = _decimals(low, high)
    text = number(value, decimals)
    if low is None or high is None or decimals is None:
        return text
    return f"{text} [{number(low, decimals)}, {number(high, decimals)}]"


def difference(d: Difference) -> str:
    """With its sign, its interval, and its verdict where it has one."""
    sign = "+" if d.value > 0 else ""
    return f"{sign}{cell(d.value, d.low, d.high)} {d.verdict or ''}".rstrip()


def figure_cell(row: Row, metric: str) -> str:
    figure = row.metrics.get(metric)
    return "n/a" if figure is None else cell(figure.value, figure.low, figure.high)


def short_name(metric: str, beside: Iterable[str] = ()) -> str:
    """A figure's name without its family; with it where a figure of another family is called the same, here or in
    another table."""
    family, _, name = metric.rpartition("/")
    shared = name in _SHARED or any(other.rpartition("/")[2] == name and other != metric for other in beside)
    return (f"{family} {name}" if shared else name).replace("_", " ").strip()


def _in_table(table: Table, metric: str) -> str:
    return short_name(metric, (name for row in table.rows for name in row.metrics))


def title(table: Table, metric: str) -> str:
    """A figure's name at the beginning of a sentence: `Spliced bits per byte (lower is better)`."""
    figure = any_figure(table, metric)
    name = _in_table(table, metric)
    way = f" ({figure.direction} is better)" if figure is not None and figure.direction != "none" else ""
    return name[:1].upper() + name[1:] + way


def heading(table: Table, metric: str) -> str:
    figure = any_figure(table, metric)
    name = _in_table(table, metric)
    if figure is None:
        return name
    told = not figure.unit or name.lower().endswith(figure.unit.lower())
    unit = "" if told else f" ({figure.unit})"
    return f"{name}{unit} {_ARROWS[figure.direction]}".rstrip()


def reasons(rows: Sequence[Row], metrics: Sequence[str]) -> list[str]:
    """Why cells say n/a: one line for the systems and metrics that share a reason."""
    lines: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        of_row: dict[str, list[str]] = {}
        for metric in metrics:
            if metric not in row.metrics:
                why = row.not_applicable.get(metric, "not measured")
                of_row.setdefault(why, []).append(metric.split("/", 1)[-1].replace("_", " "))
        for why, names in of_row.items():
            lines.setdefault((", ".join(names), why), []).append(row.system)
    return [f"n/a ({names}) for {', '.join(systems)}: {why}" for (names, why), systems in lines.items()]


def seen(table: Table, metrics: Sequence[str]) -> list[str]:
    """What the figures of a family were measured on; more than one text where metrics or systems differ in it."""
    texts = (row.metrics[metric].saw for row in table.rows for metric in metrics if metric in row.metrics)
    return list(dict.fromkeys(text for text in texts if text is not None))


def has(row: Row, metrics: Sequence[str]) -> bool:
    return any(m in row.metrics or m in row.not_applicable for m in metrics)


def difference_columns(table: Table, family: str = "") -> list[list[str]]:
    """Systems down, metrics across, each cell with its verdict if it has one. Left out: what has no better or worse, or
    is exact.

    family: only metrics whose names begin so.
    """
    by_metric: dict[str, dict[str, Difference]] = {}
    for d in table.differences:
        by_metric.setdefault(d.metric, {})[d.a] = d
    columns, usual = [], base(table)
    for metric, by_system in by_metric.items():
        figure = any_figure(table, metric) if metric.startswith(family) else None
        if figure is None or figure.direction == "none" or all(d.low == d.high for d in by_system.values()):
            continue
        cells = []
        for row in table.rows:
            d = by_system.get(row.system)
            if d is None or d.low is None or d.high is None:
                cells.append("")
                continue
            apart = "" if d.b == usual else f" (from {d.b})"
            cells.append(f"{difference(d)}{apart}")
        columns.append([heading(table, metric), *cells])
    if not columns:
        return []
    columns.insert(0, ["system", *(row.system for row in table.rows)])
    lines = [line for line in zip(*columns, strict=True) if any(line[1:])]
    return [list(column) for column in zip(*lines, strict=True)]


def base(table: Table) -> str:
    """The row that most are compared with."""
    others = [d.b for d in table.differences]
    return max(dict.fromkeys(others), key=others.count, default="")
