"""Sentences that stand above a table, made of its figures."""

from __future__ import annotations

from harness.tables.answers import answers
from harness.tables.measurement import Measurement
from harness.tables.table import RowProvenance, SeedResult, Table, build
from harness.tables.text import markdown

from .test_table import provenance


def table(**figures: dict[str, float]) -> Table:
    """Row → figure → value, with an interval of a tenth of it to either side."""
    results = []
    for system, of_system in figures.items():
        measured = [
            Measurement(name, value, "", "none", 1, [value * (0.9 + 0.2 * i / 99) for i in range(100)], "documents")
            for name, value in of_system.items()
        ]
        results.append(
            SeedResult(system.replace("UNTRAINED", "[untrained=true]"), "subject", 0, measured, RowProvenance())
        )
    return build("mine", results, provenance(), None)


def test_joint_firing_is_answered_in_one_line_for_trained_and_untrained_systems() -> None:
    found = table(dense={"joint/lift": 2.0}, peer={"joint/lift": 1.02}, denseUNTRAINED={"joint/lift": 3.0})
    (line,) = answers(found)
    assert line == (
        "Is the joint firing of units the product of the marginals? In 1 of 3 systems (pairs fire together 1.0 to 3.0 "
        "times as often); untrained ones have 3.0 to 3.0, so the question separates nothing."
    )
    assert line in markdown(found)


def test_units_that_carry_little_are_said_to() -> None:
    (line,) = answers(table(pools={"loss/carried": 0.06}, dense={"loss/carried": 0.9}))
    assert line.startswith("The units of `pools` carry 6% of what its layers do")


def test_units_that_were_not_scored_are_said_to_be_left_out() -> None:
    (line,) = answers(table(peer={"autointerp/scored_share": 0.2}, dense={"autointerp/scored_share": 0.95}))
    assert line.startswith("Of the live units of `peer`, 80% fire too rarely")


def test_a_table_without_these_figures_says_nothing_more() -> None:
    assert answers(table(dense={"loss/bits_per_byte": 2.0})) == []
