"""Results folders beside each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.base.errors import BadInput
from harness.report.page.compare import Named, moved, unlike, write
from harness.tables.table import Table

from ...tables.test_table import provenance
from .worlds import table


def changed(made: Table, **more: object) -> Table:
    return made.model_copy(update={"provenance": provenance(**more)})


def test_a_folder_beside_itself_differs_in_nothing(tmp_path: Path) -> None:
    both = [Named("one", table()), Named("two", table())]
    assert list(unlike(both)) == []
    assert all(one.times == 0 for one in moved(both))
    assert "<p>None.</p>" in write(both, tmp_path / "x" / "page.html").read_text()


def test_what_exceeds_its_interval_comes_first_and_what_does_not_is_not_listed(tmp_path: Path) -> None:
    both = [Named("one", table(dense=2.2, peer=2.1)), Named("two", table(dense=2.2, peer=2.6))]
    found = moved(both)
    assert {one.system for one in found if one.times > 1} == {"peer"}
    text = write(both, tmp_path / "page.html").read_text()
    assert text.index("+0.5") < text.index("All figures")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"corpus_hash": "other"}, "corpus: `one` beef; `two` other"),
        ({"commit": "def", "dirty": True}, "code: `one` abc; `two` def with uncommitted changes"),
        ({"matched": "tokens 5"}, "budget: `one` not stated; `two` tokens 5"),
    ],
)
def test_it_warns_of_what_must_be_alike(change: dict[str, object], says: str) -> None:
    assert list(unlike([Named("one", table()), Named("two", changed(table(), **change))])) == [
        f"They differ in {says}."
    ]


def test_what_has_no_interval_is_listed_apart(tmp_path: Path) -> None:
    made = [table(), table()]
    for one, value in zip(made, (1.0, 2.0), strict=True):
        exact = one.rows[0].metrics["usage/rare"]
        one.rows[0].metrics["usage/rare"] = exact.model_copy(update={"value": value, "low": None, "high": None})
    both = [Named("one", made[0]), Named("two", made[1])]
    text = write(both, tmp_path / "page.html").read_text()
    assert "<p>None.</p>" in text
    assert text.index("<p>None.</p>") < text.index("without an interval") < text.index("usage/rare")


def test_a_figure_whose_meaning_changed_is_not_compared() -> None:
    newer = table()
    for row in newer.rows:
        row.metrics["usage/dead"] = row.metrics["usage/dead"].model_copy(update={"version": 2, "value": 0.9})
    both = [Named("one", table()), Named("two", newer)]
    assert not [one for one in moved(both) if one.metric == "usage/dead"]
    assert "`usage/dead`" in "".join(unlike(both))


def test_folders_without_a_common_row_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no row in common"):
        write(
            [Named("one", table(dense=2.0)), Named("two", table(dense=2.0).model_copy(update={"rows": []}))],
            tmp_path / "p",
        )
    assert not (tmp_path / "p").exists()
