"""The short table: which rows stand together, which figures it shows, and which rows no other beats."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from harness.tables.build import SeedResult, build
from harness.tables.columns import families, main
from harness.tables.headline import MOST, columns, front, grouped
from harness.tables.markdown import details, markdown
from harness.tables.measurement import Measurement
from harness.tables.roads import road
from harness.tables.splice import COST, NATIVE, SPLICED, with_splice_cost
from harness.tables.table import RowProvenance, Table

from .test_table import provenance


def row(system: str, figures: dict[str, float], kind: Any = "subject", **more: Any) -> SeedResult:
    measured = [Measurement(name, value, "", "lower", 1) for name, value in figures.items()]
    return SeedResult(system, kind, 0, measured, RowProvenance(), **more)


def table(*rows: SeedResult, headline: tuple[str, ...] = (SPLICED,)) -> Table:
    return build("mine", rows, provenance(), None, headline)


def of(loss: float, units: float) -> dict[str, float]:
    return {SPLICED: loss, "kept/l0": units}


FROZEN = "dense+topk[frozen=decoder]"
ROWS = (
    row("pools", of(2.1, 2.0)),
    row("unigram", {NATIVE: 4.0}, "reference"),
    row("dense+topk", of(2.5, 20.0), "dictionary", accounting="equal total"),
    row("dense+topk[on_top=true]", of(1.8, 1.0), "dictionary", accounting="same subject", unmatched="on top"),
    row("peer", of(2.0, 3.0)),
    row("dense-relu", of(1.9, 40.0)),
    row("dense", of(2.0, 50.0)),
    row("peer[untrained=true]", of(0.1, 0.1), unmatched="an untrained control"),
    row(FROZEN, of(0.3, 0.3)),
    row("dense[variant=half]", of(0.2, 0.2), unmatched="it gets 0.5 of the budget"),
)


def test_rows_stand_by_road_and_both_accountings_apart_the_lowest_loss_first() -> None:
    assert [(group.title.split(" (")[0], [r.system for r in group.rows]) for group in grouped(table(*ROWS))] == [
        ("dense", ["dense-relu", "dense"]),
        ("post-hoc, equal total", ["dense+topk"]),
        ("post-hoc, same subject", ["dense+topk[on_top=true]"]),
        ("built-in", ["peer", "pools"]),
        ("apart: controls, and rows with another budget", ["peer[untrained=true]", "dense[variant=half]", FROZEN]),
        ("references", ["unigram"]),
    ]


def test_a_third_partys_architecture_is_built_in_and_its_dictionaries_are_post_hoc() -> None:
    made = table(row("bilinear", {}), row("bilinear+topk", {}, "dictionary"), row("densenet", {}))
    assert [road(r) for r in made.rows] == ["built-in", "post-hoc", "built-in"]


def test_a_model_of_others_is_dense_or_of_experts_whatever_its_name() -> None:
    made = table(row("hf:some/gpt", {}, elsewhere="dense"), row("hf:some/moe", {}, elsewhere="experts"))
    assert [road(r) for r in made.rows] == ["dense", "built-in"]


def test_the_front_holds_the_rows_that_no_competing_row_beats_in_loss_and_units() -> None:
    units, on_front = front(table(*ROWS))
    assert units is not None
    assert units.metric == "kept/l0"
    assert on_front == {"dense-relu", "peer", "pools"}


def test_the_front_does_not_depend_on_the_order_of_rows_and_keeps_equals() -> None:
    made = table(row("a", of(2.0, 3.0)), row("b", of(2.0, 3.0)), row("c", of(2.0, 4.0)))
    assert front(made)[1] == {"a", "b"}
    assert front(table(*reversed(ROWS)))[1] == front(table(*ROWS))[1]


def test_the_headline_has_eight_figures_at_most_and_the_experiments_own_are_among_them() -> None:
    asked = tuple(f"mine/{n}" for n in range(4))
    every = dict.fromkeys((*of(2, 3), COST, "sparsity/strength_l0_total", "usage/dead", *asked), 1.0)
    made = table(row("dense", {**every, "cost/training_flops": 1e12}), headline=asked)
    names = [column.heading for column in columns(made)]
    assert len(names) == MOST
    assert [name for name in names if name.strip(" ↓") in "0123"] == [f"{n} ↓" for n in range(4)]
    assert names[0].startswith("spliced bits per byte")
    assert names[-1].startswith("cost training flops")


def test_a_figure_that_no_row_has_takes_no_column_and_no_family() -> None:
    made = table(row("dense", {SPLICED: 2.0}, not_applicable={"joint/lift": "underpowered: 3 pairs"}))
    assert [column.heading for column in columns(made)] == ["spliced bits per byte ↓"]
    assert "## joint" not in markdown(made)
    assert "- joint/lift: underpowered: 3 pairs" in details(made)


def test_a_missing_headline_figure_is_a_warning() -> None:
    made = table(row("dense", {}, not_applicable={SPLICED: "diverged"}))
    assert "Spliced bits per byte is missing for `dense`: diverged." in markdown(made)


def test_a_family_shows_ten_figures_and_details_all_of_them() -> None:
    many = {f"mine/f{n}": float(n) for n in range(14)}
    made = table(row("dense", many), headline=("mine/f13",))
    ((family, metrics),) = families(made)
    assert main(family, metrics, made.headline) == ["mine/f13", *(f"mine/f{n}" for n in range(9))]
    assert all(f"f{n} ↓" in details(made) for n in range(14))


def test_a_figure_and_its_interval_do_not_break_but_a_verdict_may() -> None:
    results = []
    for system, values in (("dense", [2.0, 2.1, 1.9]), ("peer", [1.0, 1.3, 0.9])):
        for seed, value in enumerate(values):
            one = Measurement(SPLICED, value, "", "lower", 1)
            results.append(SeedResult(system, "subject", seed, [one], RowProvenance()))
    text = markdown(build("mine", results, provenance(), "dense", [SPLICED]))
    line = next(line for line in text.splitlines() if line.startswith("| `peer`"))
    assert "\N{NO-BREAK SPACE}[" in line
    assert line.split("|")[2].strip().endswith("] better")


def test_the_splice_costs_what_the_same_model_loses_by_it_resample_by_resample() -> None:
    rng = np.random.default_rng(0)
    native, cost = rng.normal(2.0, 0.5, 200), rng.normal(0.02, 0.001, 200)
    measured = [
        Measurement(NATIVE, 2.0, "bit/byte", "lower", 1, native, "documents"),
        Measurement(SPLICED, 2.02, "bit/byte", "lower", 1, native + cost, "documents", saw="some text"),
    ]
    (with_dictionary, without) = with_splice_cost([
        SeedResult("dense+topk", "dictionary", 0, measured, RowProvenance()),
        SeedResult("dense", "subject", 0, measured, RowProvenance()),
    ])  # fmt: skip
    found = next(m for m in with_dictionary.measurements if m.name == COST)
    assert found.value == pytest.approx(0.02)
    np.testing.assert_allclose(found.replicates, cost, atol=1e-12)  # what documents share is gone
    assert found.saw == "some text"
    assert [m.name for m in without.measurements] == [NATIVE, SPLICED]
