"""What a table answers or must warn of, in a sentence made from its figures. They stand above the table."""

from __future__ import annotations

from collections.abc import Iterator

from harness.tables.table import Figure, Row, Table

CARRIED = 0.8  # of what its layers do that a row's units must carry, or the table says that they do not
SCORED = 0.8  # of a row's live units that must have been scored


def answers(table: Table) -> list[str]:
    """Sentences, the widest first; none where the table has not the figures."""
    return [*_product_of_marginals(table), *_carried(table), *_left_out(table)]


def _product_of_marginals(table: Table) -> Iterator[str]:
    found = [(row, figure) for row in table.rows if (figure := _figure(row, "joint/lift")) is not None]
    if not found:
        return
    values = [figure.value for _, figure in found]
    away = [row for row, figure in found if figure.low is not None and figure.low > 1]
    untrained = [figure.value for row, figure in found if "untrained=true" in row.system]
    says = (
        f"Is the joint firing of units the product of the marginals? In {len(found) - len(away)} of {len(found)} "
        f"systems (pairs fire together {min(values):.1f} to {max(values):.1f} times as often)"
    )
    if untrained:
        says += f"; untrained ones have {min(untrained):.1f} to {max(untrained):.1f}, so the question separates nothing"
    yield says + "."


def _carried(table: Table) -> Iterator[str]:
    for row, share in _below(table, "loss/carried", CARRIED):
        yield (
            f"The units of `{row.system}` carry {share:.0%} of what its layers do (zero-ablated): figures of its units "
            "speak of that part alone."
        )


def _left_out(table: Table) -> Iterator[str]:
    for row, share in _below(table, "autointerp/scored_share", SCORED):
        yield (
            f"Of the live units of `{row.system}`, {1 - share:.0%} fire too rarely or too often to be scored: its "
            "scores are those of the others."
        )


def _below(table: Table, name: str, bound: float) -> Iterator[tuple[Row, float]]:
    for row in table.rows:
        figure = _figure(row, name)
        if figure is not None and figure.value < bound:
            yield row, figure.value


def _figure(row: Row, name: str) -> Figure | None:
    return row.metrics.get(name)
