"""What two tables differ in, for a person at a terminal: the rule that was used, rows, the largest first, a total."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from harness.tables.agreement import Agreement, Apart, How, RowAgreement
from harness.tables.cells import cell
from harness.tables.table import Figure

WIDTH = 100
_ONE_SIDED: dict[How, str] = {
    "gone": "gone",
    "new": "only in B",
    "not_now": "n/a in B",
    "now": "n/a in A",
    "version": "not compared",
    "unit": "not compared",
}


def lines(found: Agreement) -> Iterator[str]:
    """`A` and `B` are said by whoever calls."""
    for what, differ in (("not the same", found.told), ("not the same, so that digits may differ", found.unlike)):
        if differ:
            yield from wrapped(f"{what}: {', '.join(differ)}")
    yield from wrapped(
        "compared to the last digit"
        if found.exact
        else "compared within the intervals: a difference may be as large as both 95% intervals allow together"
    )
    shown = [row for row in found.rows if row.counted or row.incomparable]
    for row in sorted(shown, key=_largest, reverse=True):
        yield ""
        yield from _row(row, found.exact)
    yield ""
    yield from _unjudged(found)
    yield from wrapped(_total(found))


def wrapped(text: str, indent: int = 0) -> Sequence[str]:
    """Lines of at most 100 columns. A name is never cut, and what `_unbroken` has seen stays together."""
    start = " " * indent
    found = textwrap.wrap(
        text, WIDTH, initial_indent=start, subsequent_indent=f"{start}    ", break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in found]


def _largest(row: RowAgreement) -> tuple[bool, tuple[bool, float, float]]:
    seen = [each.size for each in (*row.differing, *row.incomparable)]
    return row.whole is not None, max(seen, default=(True, 0.0, 0.0))


def _row(row: RowAgreement, exact: bool) -> Iterator[str]:
    if row.whole:
        yield from wrapped(f"{row.system}: the whole row is {_ONE_SIDED[row.whole]} ({row.figures} figures)")
        return
    unlike = f", {len(row.incomparable)} cannot be compared" if row.incomparable else ""
    yield from wrapped(f"{row.system}: {row.counted} of {row.figures} figures differ{unlike}")
    alone: dict[tuple[How, str, str], list[str]] = {}
    for each in [*row.differing, *row.incomparable]:
        if each.how != "apart":
            family, _, name = each.metric.partition("/")
            alone.setdefault((each.how, family, _why(each)), []).append(name)
    for (how, family, why), names in alone.items():
        yield from wrapped(f"{family}: {_ONE_SIDED[how]}{why}: {', '.join(names)}", 2)
    for each in row.of("apart"):
        yield from wrapped(f"{each.metric}  {_apart(each, exact)}", 2)


def _why(each: Apart) -> str:
    a, b = each.a, each.b
    if each.how == "version" and a and b:
        return f", metric version {a.version} → {b.version}"
    if each.how == "unit" and a and b:
        return f", {a.unit or 'no unit'} → {b.unit or 'no unit'}"
    return f" ({each.reason})" if each.reason else ""


def _apart(each: Apart, exact: bool) -> str:
    a, b = each.a, each.b
    assert a is not None
    assert b is not None
    if exact and a.value == b.value:
        return f"{_digits(a.value)} in both, {_inside(a)} → {_inside(b)}"
    shown = [_digits(f.value) if exact else _unbroken(cell(f.value, f.low, f.high)) for f in (a, b)]
    return f"{shown[0]} → {shown[1]}: {each.change:+.3g}{_percent(each)}{_against_intervals(each)}"


def _unbroken(text: str) -> str:
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def _inside(figure: Figure) -> str:
    """What else a figure holds, where its value tells two apart no more."""
    ends = f"[{figure.low}, {figure.high}]" if figure.low is not None else "no interval"
    return f"{ends}, seeds {', '.join(map(str, figure.seeds))}" if len(figure.seeds) > 1 else ends


def _digits(value: float) -> str:
    return f"{value:,.0f}" if value.is_integer() and abs(value) < 1e15 else repr(value)


def _percent(each: Apart) -> str:
    if each.a is None or not each.a.value:
        return ""
    share = 100 * each.change / abs(each.a.value)
    return f" ({share:+.1f}%)" if abs(share) >= 0.1 else f" ({share:+.0e}%)"


def _against_intervals(each: Apart) -> str:
    """Nothing where the intervals allow as much, or there are none: digits alone differ."""
    if each.times is None or each.times <= 1:
        return ""
    return ", where none is allowed" if each.times == float("inf") else f", {each.times:.1f} times what intervals allow"


def _unjudged(found: Agreement) -> Iterator[str]:
    rows = [(row, each) for row in found.rows for each in row.unjudged]
    if rows:
        row, most = max(rows, key=lambda pair: pair[1].relative)
        assert most.a is not None
        assert most.b is not None
        yield from wrapped(
            f"not judged: {len(rows)} figures differ that have no interval, most {most.metric} of {row.system}, "
            f"{cell(most.a.value, None, None)} → {cell(most.b.value, None, None)}{_percent(most)}"
        )


def _total(found: Agreement) -> str:
    figures, rows = sum(row.figures for row in found.rows), len(found.rows)
    clock = f"; {found.timings} timings are never compared" if found.timings else ""
    if found.agrees:
        how = "agree to the last digit" if found.exact else "agree within their intervals"
        return f"total: {figures} figures in {rows} rows {how}{clock}"
    differing = sum(row.counted for row in found.rows)
    parts = [f"{differing} of {figures} figures differ, in {sum(row.counted > 0 for row in found.rows)} of {rows} rows"]
    if found.exact:
        beyond = [e for row in found.rows for e in row.of("apart") if e.times is not None and e.times > 1]
        parts.append(f"{len(beyond)} of them by more than the intervals allow")
    if unlike := sum(len(row.incomparable) for row in found.rows):
        parts.append(f"{unlike} cannot be compared")
    return f"total: {', '.join(parts)}{clock}"
