"""Which road loses less per active unit: told where every row of the other loses, in both figures and resolved."""

from __future__ import annotations

from typing import Any

from harness.tables.build import SeedResult, build
from harness.tables.by_road import sentences
from harness.tables.measurement import Measurement
from harness.tables.splice import SPLICED
from harness.tables.table import RowProvenance
from harness.tables.verdict import verdict

from .test_table import provenance

SEEDS = (0.0, 0.011, -0.009)  # what seeds add to every row's loss alike; pairs are taken by seed


def rows(system: str, loss: float, units: float | None, apart: float = 0.001, **more: Any) -> list[SeedResult]:
    """A row of three seeds. apart: how much seeds differ beyond what all rows share."""
    kind = more.pop("kind", "dictionary" if "+" in system else "subject")
    found = []
    for seed, shared in enumerate(SEEDS):
        own = apart * (seed - 1) * (1 if len(system) % 2 else -1)
        measured = [Measurement(SPLICED, loss + shared + own, "bit/byte", "lower", 1)]
        if units is not None:
            measured.append(Measurement("kept/l0", units + 0.1 * seed * len(system), "units", "lower", 1))
        found.append(SeedResult(system, kind, seed, measured, RowProvenance(), **more))
    return found


def said(*results: list[SeedResult], baseline: str | None = None) -> list[str]:
    return list(sentences(build("mine", [one for of in results for one in of], provenance(), baseline)))


def test_a_road_is_told_where_every_row_of_the_other_loses_to_one_of_its_own() -> None:
    found = said(rows("dense", 2.5, 60), rows("dense-relu", 2.4, 40), rows("peer", 2.1, 3), rows("moex", 2.6, 90))
    assert len(found) == 1
    assert found[0].startswith(
        "Per active unit (units a token and layer kept at +0.02 bits per byte; rows paired by seed) built-in loses "
        "less than dense: `peer` loses less than `dense` (by 0.4"
    )
    assert "`peer` loses less than `dense-relu` (by 0.3" in found[0]


def test_a_row_that_none_beats_leaves_its_road_untold_and_is_named() -> None:
    (line,) = said(rows("dense", 2.5, 60), rows("dense-relu", 2.0, 40), rows("peer", 2.1, 3))
    assert "built-in is not told from dense as a whole: `peer` loses less than `dense`" in line
    assert line.endswith("; against `dense-relu` nothing is told.")


def test_less_loss_with_more_units_tells_nothing_and_both_accountings_stand_apart() -> None:
    on_top = {"accounting": "same subject", "unmatched": "on top"}
    found = said(
        rows("dense", 2.0, 60),
        rows("dense+topk", 2.2, 20, accounting="equal total"),
        rows("dense+topk[on_top=true]", 2.1, 20, **on_top),
        rows("peer", 2.4, 3),
    )
    assert found == [
        "Which road loses less per active unit (units a token and layer kept at +0.02 bits per byte) is not told: "
        "dense against post-hoc, equal total; dense against post-hoc, same subject; dense against built-in; post-hoc, "
        "equal total against built-in; post-hoc, same subject against built-in."
    ]


def test_what_seeds_do_not_resolve_is_not_told() -> None:
    (line,) = said(rows("dense", 2.5, 60, apart=0.2), rows("peer", 2.3, 3, apart=0.2))
    assert line.endswith("is not told: dense against built-in.")


def test_one_pair_that_stands_alone_falls_among_many_that_are_nothing() -> None:
    close = [rows("dense", 2.50, 60), rows("peer", 2.46, 3, apart=0.01)]
    assert "built-in loses less than dense" in said(*close)[0]
    nothing = [rows(f"n{n}", 2.5, 60, apart=0.2) for n in range(20)]
    assert all("not told" in line for line in said(*close, *nothing))


def test_one_seed_is_no_verdict() -> None:
    assert said(rows("dense", 2.5, 60)[:1], rows("peer", 2.1, 3)[:1]) == []
    (line,) = said(rows("dense", 2.5, 60), rows("peer", 2.1, 3)[:1])
    assert line.endswith("is not told: dense against built-in.")


def test_a_row_without_the_count_is_named_and_controls_are_not_read() -> None:
    untrained = rows("peer[untrained=true]", 4.0, 1, unmatched="an untrained control")
    found = said(rows("dense", 2.5, 60), rows("peer", 2.1, 3), rows("dense+topk", 2.6, None), untrained)
    assert found[-1] == "Left out of that, since it has no such count: `dense+topk`."
    assert "untrained" not in "".join(found)


def test_a_difference_that_the_table_has_is_taken_from_it() -> None:
    results = [*rows("dense", 2.5, 60), *rows("peer", 2.1, 3)]
    made = build("mine", results, provenance(), "dense", [SPLICED])
    d = next(d for d in made.differences if d.metric == SPLICED)
    d.low, d.high, d.p = d.value - 0.123, d.value + 0.123, 1e-6
    line = next(line for line in verdict(made) if line.startswith("Per active unit"))
    assert "by 0.40 [0.28, 0.52] bits per byte" in line
    d.p = 0.5
    assert any("is not told" in line for line in verdict(made))


def test_rows_of_one_road_are_not_asked() -> None:
    assert said(rows("peer", 2.5, 60), rows("pools", 2.1, 3)) == []
