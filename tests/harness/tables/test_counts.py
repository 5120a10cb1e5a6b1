"""Units are counted in one order everywhere, and a heading says which figure it is."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from harness.report import difference
from harness.report.page.content import content
from harness.tables import folder
from harness.tables.cells import heading, title
from harness.tables.counts import COUNTS, NAMES, of_row, of_table
from harness.tables.headline import columns, front
from harness.tables.splice import SPLICED

from .test_headline import row, table

RESULTS = Path(__file__).parents[3] / "results"


@pytest.mark.parametrize("have", [NAMES, NAMES[1:], NAMES[2:]])
def test_what_counts_units_is_the_same_in_front_figure_and_page(have: tuple[str, ...]) -> None:
    figures = dict.fromkeys(have, 2.0)
    made = table(row("dense", {SPLICED: 2.0, **figures}), row("peer", {SPLICED: 1.9, **figures}))
    first, drawn = COUNTS[NAMES.index(have[0])], difference.draw(made)
    assert of_table(made) == of_row(made.rows[0]) == front(made)[0] == first
    assert drawn is not None
    assert first.axis in str(drawn.spec())
    assert [count["value"] for count in content(made)["counts"]] == list(NAMES)


def test_systems_are_matched_on_what_the_loss_needs() -> None:
    assert NAMES[0] == "kept/l0"
    assert len({count.said for count in COUNTS}) == len({count.axis for count in COUNTS}) == len(COUNTS)


def test_a_name_that_several_families_have_keeps_its_family() -> None:
    made = table(row("dense", {"kept/l0": 1.0, "mine/depth": 2.0, "other/depth": 3.0, "mine/width": 4.0}))
    headings = {name: heading(made, name) for name in made.rows[0].metrics}
    assert headings == {
        "kept/l0": "kept l0 ↓", "mine/depth": "mine depth ↓", "other/depth": "other depth ↓", "mine/width": "width ↓",
    }  # fmt: skip
    assert title(made, "kept/l0") == "Kept l0 (lower is better)"
    assert "kept l0 ↓" in [column.heading for column in columns(made)]


@pytest.mark.parametrize("name", ["architectures", "autointerp", "moex_ablation", "quickstart", "targets"])
def test_no_two_figures_of_a_committed_table_share_a_heading(name: str) -> None:
    made = folder.read(RESULTS / name)
    said = Counter(heading(made, metric) for metric in made.metric_names())
    assert [text for text, times in said.items() if times > 1] == []
