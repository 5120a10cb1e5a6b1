"""Whether two tables say the same, figure by figure: one experiment run twice, or two results folders.

The rule. What a clock gave is never compared. Where nothing differs that digits depend on (settings, machine, versions,
threads, kernels), a figure agrees when its value, both ends of its interval and every seed are the same to the last
digit. Else it agrees when 0 lies in the 95% interval of the difference of two independent figures: the difference is at
most the two half-widths that face each other, added in squares (Zou and Donner 2008). So it agrees in particular when
either lies in the other's interval. A count (a whole number without an interval, for which no text was read) must be
the same everywhere; any other figure without an interval cannot be judged from another machine: said, not counted.

What only one table has, or has no figure for, differs. Of other versions or units: not compared, nor do they agree.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from harness.base.errors import BadInput
from harness.base.row_name import RowName
from harness.tables.table import Figure, Provenance, Row, Table

# gone, new: no word of it in the other table. not_now, now: the other table says why it has none. version, unit:
# another figure under the same name. apart: they do not agree by the rule. unjudged: no interval, another machine.
How = Literal["gone", "new", "not_now", "now", "version", "unit", "apart", "unjudged"]
_ROUNDING = 1e-6  # of a figure: an interval that is narrower is rounding error, and no width


@dataclass(frozen=True)
class Apart:
    """A figure of a row in which two tables differ. `reason`: why there is none, where one table has none.

    times: the difference in units of what both intervals allow; infinite where they allow none (a count); None where
    nobody can say, since neither has an interval.
    """

    metric: str
    how: How
    a: Figure | None = None
    b: Figure | None = None
    reason: str = ""
    times: float | None = None

    @property
    def change(self) -> float:
        return self.b.value - self.a.value if self.a and self.b else math.inf

    @property
    def relative(self) -> float:
        """To the first table's figure."""
        if self.change == 0:
            return 0.0
        return abs(self.change) / abs(self.a.value) if self.a and self.a.value else math.inf

    @property
    def size(self) -> tuple[bool, float, float]:
        """For an order, largest first: what cannot be compared, then what the intervals do not allow, then the rest."""
        beyond = self.times if self.times is not None and self.times > 1 else 0.0
        return self.how not in ("apart", "unjudged"), beyond, self.relative


@dataclass(frozen=True)
class RowAgreement:
    """One row. whole: it is in one table only. figures: how many were looked at."""

    system: str
    figures: int
    found: list[Apart] = field(default_factory=list)
    whole: Literal["gone", "new"] | None = None

    def of(self, *how: How) -> list[Apart]:
        """The largest first."""
        return sorted((each for each in self.found if each.how in how), key=lambda each: each.size, reverse=True)

    @property
    def differing(self) -> list[Apart]:
        return self.of("gone", "new", "not_now", "now", "apart")

    @property
    def incomparable(self) -> list[Apart]:
        return self.of("version", "unit")

    @property
    def unjudged(self) -> list[Apart]:
        return self.of("unjudged")

    @property
    def counted(self) -> int:
        return self.figures if self.whole else len(self.differing)


@dataclass(frozen=True)
class Agreement:
    """unlike: what digits depend on and is not the same; empty: they were compared to the last digit. told: what else
    differs in where the tables come from. timings: figures of a clock, left out."""

    unlike: list[str]
    told: list[str]
    rows: list[RowAgreement]
    timings: int

    @property
    def exact(self) -> bool:
        return not self.unlike

    @property
    def agrees(self) -> bool:
        return not any(row.counted or row.incomparable for row in self.rows)


def agreement(a: Table, b: Table) -> Agreement:
    """What differs from `a` to `b`."""
    unlike = _unlike(a, b)
    others = {_known_as(row.system): row for row in b.rows}
    rows, timings = [], 0
    for row in a.rows:
        other = others.pop(_known_as(row.system), None)
        timings += sum(figure.timing for figure in row.metrics.values())
        if other is None:
            rows.append(RowAgreement(row.system, len(_untimed(row)), whole="gone"))
            continue
        found = list(_compared(row, other, exact=not unlike))
        rows.append(RowAgreement(row.system, len({**_untimed(row), **_untimed(other)}), found))
    rows += [RowAgreement(row.system, len(_untimed(row)), whole="new") for row in others.values()]
    return Agreement(unlike, _told(a.provenance, b.provenance), rows, timings)


def _untimed(row: Row) -> dict[str, Figure]:
    return {name: figure for name, figure in row.metrics.items() if not figure.timing}


def _known_as(system: str) -> object:
    """The row's name, in which the order of settings says nothing."""
    try:
        name = RowName.of(system)
    except BadInput:  # of an older tree's grammar
        return system
    parts = [part for part in (name.subject, name.dictionary) if part is not None]
    return tuple((part.name, tuple(sorted(piece.strip() for piece in part.pieces.values()))) for part in parts)


def _compared(row: Row, other: Row, exact: bool) -> Iterator[Apart]:
    for name in {**row.metrics, **other.metrics}:
        a, b = row.metrics.get(name), other.metrics.get(name)
        if any(figure is not None and figure.timing for figure in (a, b)):
            continue
        if a is None or b is None:
            reason = _why_none(other if b is None else row, name)
            how: How = ("not_now" if reason else "gone") if b is None else ("now" if reason else "new")
            yield Apart(name, how, a, b, reason)
        elif a.version != b.version:
            yield Apart(name, "version", a, b)
        elif a.unit != b.unit:
            yield Apart(name, "unit", a, b)
        elif (a.value, a.low, a.high, a.seeds) != (b.value, b.low, b.high, b.seeds):
            times = _times(a, b)
            if exact:
                yield Apart(name, "apart", a, b, times=times)
            elif times is None:
                yield Apart(name, "unjudged", a, b)
            elif times > 1:
                yield Apart(name, "apart", a, b, times=times)


def _why_none(row: Row, metric: str) -> str:
    """Why the row has no such figure: of its own, or of its whole metric, which failed."""
    return row.not_applicable.get(metric) or row.not_applicable.get(f"{metric.split('/')[0]}/failed", "")


def _times(a: Figure, b: Figure) -> float | None:
    apart = abs(b.value - a.value)
    if apart <= 1e-9 * max(abs(a.value), abs(b.value)):
        return 0.0
    if not _has_width(a) and not _has_width(b):
        counts = all(figure.saw is None and figure.value.is_integer() for figure in (a, b))
        return math.inf if counts else None
    lower, higher = sorted((a, b), key=lambda figure: figure.value)
    up = (lower.value if lower.high is None else lower.high) - lower.value
    down = higher.value - (higher.value if higher.low is None else higher.low)
    allowed = math.hypot(max(0.0, up), max(0.0, down))  # bias is taken off intervals: they need not hold their figure
    return apart / allowed if allowed else math.inf


def _has_width(figure: Figure) -> bool:
    if figure.low is None or figure.high is None:
        return False
    return figure.high - figure.low > _ROUNDING * max(abs(figure.low), abs(figure.high))


def _unlike(a: Table, b: Table) -> list[str]:
    """What digits depend on, besides our code: each as `what A → B`."""
    p, q = a.provenance, b.provenance
    pairs: list[tuple[str, object, object]] = [
        ("settings", p.config_hash[:8], q.config_hash[:8]),
        ("CPU", p.hardware.cpu, q.hardware.cpu),
        ("GPU", p.hardware.gpu, q.hardware.gpu),
        *((name, getattr(p, name), getattr(q, name)) for name in ("device", "dtype", "threads", "os")),
        ("Python", p.python, q.python),
        *((name, p.packages.get(name), q.packages.get(name)) for name in sorted({**p.packages, **q.packages})),
    ]
    others = {row.system: row.provenance.kernels for row in b.rows}
    for row in a.rows:
        theirs = others.get(row.system, {})
        ours = {op: ran for op, ran in row.provenance.kernels.items() if op in theirs}
        pairs += [(f"kernel {op}", ran, theirs[op]) for op, ran in ours.items()]
    return list(dict.fromkeys(_said(pairs)))


def _told(p: Provenance, q: Provenance) -> list[str]:
    a, b = (f"{each.commit or 'none'}"[:8] + (" with changes" if each.dirty else "") for each in (p, q))
    return list(_said([("commit", a, b), ("text", p.corpus_hash[:8], q.corpus_hash[:8])]))


def _said(pairs: list[tuple[str, object, object]]) -> Iterator[str]:
    yield from (f"{what} {p or 'none'} → {q or 'none'}" for what, p, q in pairs if p != q)
