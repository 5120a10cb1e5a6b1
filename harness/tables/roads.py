"""Which road a row goes, and the groups that its table is read in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from harness.base.row_name import RowName
from harness.tables.table import Row

Road = Literal["dense", "post-hoc", "built-in", "apart", "reference"]


@dataclass(frozen=True)
class Group:
    """Rows that are read against each other, under one heading."""

    title: str
    rows: tuple[Row, ...]


def road(row: Row) -> Road:
    """Dense models are those whose architecture's name begins with dense, and others' models without experts; what is
    neither that nor a dictionary is built so that it can be read. apart: controls, and rows that get another budget
    than the rest."""
    if row.kind == "reference":
        return "reference"
    name = RowName.of(row.system)
    if is_control(row) or (row.unmatched is not None and row.accounting is None):
        return "apart"
    if name.dictionary is not None:
        return "post-hoc"
    dense = row.elsewhere == "dense" if row.elsewhere is not None else name.subject.name.split("-")[0] == "dense"
    return "dense" if dense else "built-in"


def is_control(row: Row) -> bool:
    """Whether the row has learnt nothing, or its dictionaries only one half of themselves."""
    name = RowName.of(row.system)
    frozen = None if name.dictionary is None else name.dictionary.settings.get("frozen", "none")
    return bool(name.subject.settings.get("untrained")) or frozen not in (None, "none")


def groups(rows: Sequence[Row]) -> list[Group]:
    """Every row once, in the order that tables have them; a group without rows is left out."""
    titles = {
        "dense": "dense",
        "equal total": "post-hoc, equal total (dictionaries out of the row's budget)",
        "same subject": "post-hoc, same subject (dictionaries on top)",
        "post-hoc": "post-hoc",
        "built-in": "built-in",
        "apart": "apart: controls, and rows with another budget",
        "reference": "references",
    }
    placed: dict[str, list[Row]] = {title: [] for title in titles.values()}
    for row in rows:
        way = road(row)
        placed[titles[row.accounting if way == "post-hoc" and row.accounting else way]].append(row)
    return [Group(title, tuple(of)) for title, of in placed.items() if of]
