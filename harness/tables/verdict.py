"""The verdict of a table, in sentences made from its figures: what its headline resolves, and what it does not."""

from __future__ import annotations

from collections.abc import Iterator

from harness.tables import by_road
from harness.tables.build import nothing_real
from harness.tables.cells import cell, difference, title
from harness.tables.columns import any_figure
from harness.tables.counts import of_row
from harness.tables.roads import is_control
from harness.tables.splice import COST, NATIVE, SPLICED
from harness.tables.table import Difference, Table


def verdict(table: Table) -> list[str]:
    """Sentences; none where the table has no headline figure."""
    said: list[str] = []
    for metric in table.headline:
        if any_figure(table, metric) is not None:
            said += [*_against_rows(table, metric), *_against_controls(table, metric)]
    return [*said, *by_road.sentences(table), *_splices(table), *_product_of_marginals(table)]


def _against_rows(table: Table, metric: str) -> Iterator[str]:
    """What is resolved with its interval; what is not by name alone: the table has its figures."""
    found = [d for d in table.differences if d.metric == metric and d.verdict is not None]
    for base in dict.fromkeys(d.b for d in found):
        against = {
            says: sorted((d for d in found if (d.b, d.verdict) == (base, says)), key=lambda d: d.value)
            for says in _WORDS
        }
        if metric == SPLICED:
            yield from (_loses_less(table, d) for d in against.pop("better"))
        parts = [f"{says}: {', '.join(map(_named, of))}" for says, of in against.items() if of and says != "unresolved"]
        if of := against["unresolved"]:
            parts.append(f"not told from it: {', '.join(f'`{d.a}`' for d in of)}")
        if parts:
            yield f"{title(table, metric)}, against `{base}`: {'; '.join(parts)}."


_WORDS = ("better", "worse", "unresolved")


def _loses_less(table: Table, d: Difference) -> str:
    row = next(row for row in table.rows if row.system == d.a)
    low, high = (None, None) if d.low is None or d.high is None else (-d.high, -d.low)
    said = f"`{d.a}` loses {cell(-d.value, low, high)} bits per byte less than `{d.b}`"
    if table.provenance.matched and row.unmatched is None:
        said += f" at equal {table.provenance.matched.split()[0].replace('_', ' ')}"
    if (count := of_row(row)) is not None:
        said += f", with {row.metrics[count.metric].value:.3g} {count.said}"
    if (dead := row.metrics.get("usage/dead")) is not None:
        said += f"; {dead.value:.0%} of its units are dead"
    return f"{said}."


def _named(d: Difference) -> str:
    return f"`{d.a}` {difference(d.model_copy(update={'verdict': None}))}"


def _against_controls(table: Table, metric: str) -> Iterator[str]:
    nothing = nothing_real(metric)
    judged = [(row, f) for row in table.rows if (f := row.metrics.get(metric)) and f.against_control is not None]
    if nothing is None or not judged:
        return
    parts = []
    for says in ("above", "below"):
        of = [f"`{row.system}` {cell(f.value, f.low, f.high)}" for row, f in judged if f.against_control == says]
        if of:
            parts.append(f"{says}: {', '.join(of)}")
    if of := [f"`{row.system}`" for row, f in judged if f.against_control == "unresolved"]:
        parts.append(f"not told from it: {', '.join(of)}")
    yield f"{title(table, metric)}, against its own control ({nothing:g}): {'; '.join(parts)}."


def _splices(table: Table) -> Iterator[str]:
    """How much of a dictionary row's difference is its subject, which trained on less, and how much the splice."""
    differences = {(d.a, d.metric): d for d in table.differences}
    for row in table.rows:
        whole, subject = differences.get((row.system, SPLICED)), differences.get((row.system, NATIVE))
        cost = row.metrics.get(COST)
        if row.accounting == "equal total" and whole and subject and cost:
            yield (
                f"Of the {whole.value:+.3f} of `{row.system}`, {subject.value:+.3f} is its subject, which trained on "
                f"less, and {cost.value:+.3f} the splice."
            )


def _product_of_marginals(table: Table) -> Iterator[str]:
    found = [(row, figure) for row in table.rows if (figure := row.metrics.get("joint/lift")) is not None]
    if not found:
        return
    values = [figure.value for _, figure in found]
    away = [row for row, figure in found if figure.low is not None and figure.low > 1]
    untrained = [figure.value for row, figure in found if is_control(row)]
    says = (
        f"Is the joint firing of units the product of the marginals? In {len(found) - len(away)} of {len(found)} "
        f"systems (pairs fire together {min(values):.1f} to {max(values):.1f} times as often)"
    )
    if untrained:
        says += f"; untrained ones have {min(untrained):.1f} to {max(untrained):.1f}, so the question separates nothing"
    yield says + "."
