"""What a reader of a table must know before believing its figures, in sentences made from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.base.row_name import RowName
from harness.tables.cells import title
from harness.tables.roads import is_control
from harness.tables.splice import NATIVE, SPLICED
from harness.tables.table import Row, Table

CARRIED = 0.8  # of what its layers do that a row's units must carry, or the table says that they do not
# How the note of a row begins whose candidates were tried in an order, and that took the first or the last of them.
AT_AN_END = "chosen at an end of what was tried"
SCORED = 0.8  # of a row's live units that must have been scored
PROBE = "concepts/stream_f1"  # on what the output head reads: where a layer keeps the board is not asked
BOARD = "concepts/stream_f1_square"  # of concepts that only the labels of board games have
EMERGED = 0.05  # by so much F1 a probe must do better than on the untrained row, and by more than their intervals
FLOOR = "floor"  # the reference that knows the text's own probabilities, and counts nothing (harness/corpus/floor.py)


def warnings(table: Table) -> list[str]:
    """What a reader must know before believing the figures."""
    said = []
    one_seed = [row for row in table.rows if row.kind != "reference" and len(row.seeds) == 1]
    if one_seed:
        which = "" if len(one_seed) == sum(row.kind != "reference" for row in table.rows) else f" ({_names(one_seed)})"
        said.append(
            f"Rows with one seed get no verdict{which}: their interval is that of these very weights on other "
            "documents, and trained anew with another seed they may differ by more."
        )
    if loose := [row for row in table.rows if any(note.startswith("not converged") for note in row.notes)]:
        said.append(f"Not converged, so that more training may change them: {_names(loose)}.")
    if ends := [row for row in table.rows if any(note.startswith(AT_AN_END) for note in row.notes)]:
        said.append(f"Chosen at an end of what was tried, so that a better one may lie beyond it: {_names(ends)}.")
    said += _counting(table)
    if apart := [row for row in table.rows if row.unmatched is not None]:
        said.append(f"Not matched with the rest: {', '.join(f'`{r.system}` ({r.unmatched})' for r in apart)}.")
    for metric in table.headline:
        learnt = [
            row
            for row in table.rows
            if is_control(row) and metric in row.metrics and row.metrics[metric].against_control in ("above", "below")
        ]
        if learnt:
            what = title(table, metric)
            said.append(f"{what} is told from its control in rows that are controls themselves: {_names(learnt)}.")
        reasons: dict[str, list[Row]] = {}
        for row in table.rows:
            if metric in row.not_applicable and row.kind != "reference":
                reasons.setdefault(row.not_applicable[metric], []).append(row)
        said += [f"{title(table, metric)} is missing for {_names(of)}: {why}." for why, of in reasons.items()]
    if table.provenance.dirty:
        said.append("Made from a tree with uncommitted changes.")
    return [*said, *_no_board(table), *_carried(table), *_left_out(table)]


def _counting(table: Table) -> Iterator[str]:
    """Rows that lose more than the best of what only counts tokens."""
    counted = [row for row in table.rows if row.kind == "reference" and row.system != FLOOR and NATIVE in row.metrics]
    rows = [row for row in table.rows if SPLICED in row.metrics and not is_control(row)]
    if not counted or not rows:
        return
    best = min(counted, key=lambda row: row.metrics[NATIVE].value)
    loss = best.metrics[NATIVE].value
    if beaten := [row for row in rows if row.metrics[SPLICED].value > loss]:
        which = "every row" if len(beaten) == len(rows) else _names(beaten)
        yield f"`{best.system}`, which only counts tokens, loses less ({loss:.3f} bits per byte) than {which}."


def _no_board(table: Table) -> Iterator[str]:
    """Rows of which nothing follows from what their units do not know: their subject does not know the board either."""
    untrained = [row for row in table.rows if PROBE in row.metrics and _is_untrained(row)]
    without: dict[str, list[str]] = {}  # by untrained row
    for row in table.rows:
        other = _alike(row, untrained)
        if BOARD not in row.metrics or PROBE not in row.metrics or other is None or _is_untrained(row):
            continue
        here, there = row.metrics[PROBE], other.metrics[PROBE]
        apart = here.low is None or there.high is None or here.low > there.high
        if not (apart and here.value - there.value >= EMERGED):
            against = f"F1 {there.value:.3f} in `{other.system}`"
            without.setdefault(against, []).append(f"`{row.system}` ({here.value:.3f})")
    for against, rows in without.items():
        yield (
            f"Board tracking has not emerged in {', '.join(rows)}: a full linear probe on the last stream reaches "
            f"{against}, and clear would be {EMERGED} more with intervals apart. So nothing follows from what units do "
            "not know there."
        )


def _is_untrained(row: Row) -> bool:
    return bool(RowName.of(row.system).subject.settings.get("untrained"))


def _alike(row: Row, untrained: Sequence[Row]) -> Row | None:
    """The untrained row that a row's probe is held against: of the same kind and read at the same point; of those with
    the same subject and dictionary, else with the same subject, else of all, the one with the best probe."""
    name = RowName.of(row.system)

    def distance(other: Row) -> tuple[bool, bool, float]:
        its = RowName.of(other.system)
        dictionaries = [one.dictionary.name if one.dictionary else "" for one in (name, its)]
        return (its.subject.name != name.subject.name, len(set(dictionaries)) > 1, -other.metrics[PROBE].value)

    candidates = [other for other in untrained if other.kind == row.kind and _point(other) == _point(row)]
    return min(candidates, key=distance, default=None)


def _point(row: Row) -> object:
    return RowName.of(row.system).last.settings.get("point")


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
        figure = row.metrics.get(name)
        if figure is not None and figure.value < bound:
            yield row, figure.value


def _names(rows: Sequence[Row]) -> str:
    return ", ".join(f"`{row.system}`" for row in rows)
