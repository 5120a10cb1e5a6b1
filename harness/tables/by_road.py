"""Which road loses less per active unit: each against each other, post-hoc rows under both accountings.

A row wins against one of another road where it loses less and takes no more units, both resolved. A road is told from
another where each of the other's rows loses to one of its own. All pairs of rows that one table reads are corrected
together, as its other verdicts are (harness/tables/build.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from scipy.stats import false_discovery_control

from harness.tables.build import FALSE_DISCOVERIES
from harness.tables.cells import cell
from harness.tables.counts import Count, of_table
from harness.tables.roads import Group, groups, road
from harness.tables.splice import SPLICED
from harness.tables.statistics import Interval, interval
from harness.tables.table import Row, Table


@dataclass(frozen=True)
class Win:
    """loss, units: winner minus loser."""

    winner: Row
    loser: Row
    loss: Interval
    units: Interval


@dataclass(frozen=True)
class _Said:
    """whole: of the road, not of some of its rows."""

    text: str
    whole: bool


def sentences(table: Table) -> Iterator[str]:
    """One for every two roads of which something is told, one that names all others, and one of rows left out. None
    where no row has several seeds: there nothing is a verdict, and a warning says so."""
    count = of_table(table)
    if count is None or not any(len(row.seeds) > 1 for row in table.rows):
        return
    ways = list(_ways(table, count))
    pairs = [(a, b) for a, b in combinations(ways, 2) if road(a.rows[0]) != road(b.rows[0])]
    won = _resolved(table, count, [(x, y) for a, b in pairs for x in a.rows for y in b.rows])
    open_: list[str] = []
    for pair in pairs:
        said = [found for a, b in (pair, pair[::-1]) if (found := _said(a, b, won)) is not None]
        told = any(found.whole for found in said)
        yield from (
            f"Per active unit ({count.said}; rows paired by seed) {found.text}."
            for found in said
            if found.whole >= told
        )
        if not said:
            open_.append(" against ".join(_name(one) for one in pair))
    if open_:
        yield f"Which road loses less per active unit ({count.said}) is not told: {'; '.join(open_)}."
    if pairs and (without := [row for row in table.rows if _competes(row) and count.metric not in row.metrics]):
        names = ", ".join(f"`{row.system}`" for row in without)
        yield f"Left out of that, since it has no such count: {names}."


def _competes(row: Row) -> bool:
    """On its own budget, or a dictionary on top of one: its group says so."""
    return (
        road(row) not in ("apart", "reference")
        and (row.unmatched is None or row.accounting is not None)
        and SPLICED in row.metrics
    )


def _ways(table: Table, count: Count) -> Iterator[Group]:
    """The groups of rows that compete and have the count."""
    for group in groups(table.rows):
        rows = tuple(row for row in group.rows if _competes(row) and count.metric in row.metrics)
        if rows:
            yield Group(group.title, rows)


def _resolved(table: Table, count: Count, pairs: Sequence[tuple[Row, Row]]) -> list[Win]:
    wins, ps = [], []
    for x, y in pairs:
        loss, units = _minus(table, x, y, SPLICED), _minus(table, x, y, count.metric)
        if loss is None or units is None:
            continue
        turned = loss.value > 0
        win = Win(y, x, _turned(loss), _turned(units)) if turned else Win(x, y, loss, units)
        wins.append(win)
        ps.append(_p(win))
    if not wins:
        return []
    return [win for win, p in zip(wins, false_discovery_control(ps), strict=True) if p <= FALSE_DISCOVERIES]


def _p(win: Win) -> float:
    """Of both at once: the larger of the two; 1 where the winner takes more units. Equally many on every seed are no
    more."""
    if win.units.value > 0 or win.loss.p is None or win.units.p is None:
        return 1.0
    return max(win.loss.p, 0.0 if win.units.low == win.units.high else win.units.p)


def _minus(table: Table, x: Row, y: Row, metric: str) -> Interval | None:
    """x − y. As the table has it; else by seeds that both have, since a table holds no documents."""
    for d in table.differences:
        if d.metric == metric and {d.a, d.b} == {x.system, y.system}:
            found = Interval(d.value, d.low, d.high, d.p)
            return found if d.a == x.system else _turned(found)
    theirs = dict(zip(y.seeds, y.metrics[metric].seeds, strict=True))
    apart = [
        ours - other
        for seed, ours in zip(x.seeds, x.metrics[metric].seeds, strict=True)
        if ours is not None and (other := theirs.get(seed)) is not None
    ]
    return interval([None] * len(apart), apart) if apart else None


def _turned(one: Interval) -> Interval:
    low, high = (None, None) if one.low is None or one.high is None else (-one.high, -one.low)
    return Interval(-one.value, low, high, one.p)


def _said(a: Group, b: Group, won: Sequence[Win]) -> _Said | None:
    """What rows of `a` win against rows of `b`: against each the one that loses least; None where nothing."""
    best: dict[str, Win] = {}
    for win in won:
        if win.winner in a.rows and win.loser in b.rows:
            other = best.get(win.loser.system)
            if other is None or win.loss.value < other.loss.value:
                best[win.loser.system] = win
    if not best:
        return None
    told = ", ".join(f"`{win.winner.system}` loses less than `{loser}` ({_by(win)})" for loser, win in best.items())
    left = ", ".join(f"`{row.system}`" for row in b.rows if row.system not in best)
    if left:
        untold = f"{_name(a)} is not told from {_name(b)} as a whole"
        return _Said(f"{untold}: {told}; against {left} nothing is told", False)
    return _Said(f"{_name(a)} loses less than {_name(b)}: {told}", True)


def _by(win: Win) -> str:
    loss, units = _turned(win.loss), _turned(win.units)
    fewer = f"{cell(units.value, units.low, units.high)} fewer" if units.value else "as many"
    return f"by {cell(loss.value, loss.low, loss.high)} bits per byte, with {fewer} units"


def _name(way: Group) -> str:
    return way.title.split(" (")[0]
