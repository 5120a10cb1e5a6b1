"""Whether two tables say the same: the rule, on figures whose intervals are known; and what a person reads of it."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest

from harness.tables.agreement import Agreement, Apart, agreement
from harness.tables.agreement_text import WIDTH, lines
from harness.tables.table import Figure, Hardware, Row, RowProvenance, Table

from .test_table import provenance

LOSS, COUNT = "loss/bits_per_byte", "cost/parameters"
ELSEWHERE: dict[str, Any] = {"hardware": Hardware(cpu="another", cores=2, memory_gib=24)}


def figure(value: float, low: float | None = None, high: float | None = None, **more: Any) -> Figure:
    given = {"unit": "bit", "direction": "lower", "version": 1, "seeds": [value], "saw": "4 targets", **more}
    return Figure(value=value, low=low, high=high, **given)


def row(system: str, metrics: dict[str, Figure], **more: Any) -> Row:
    return Row(system=system, kind="subject", seeds=[0], metrics=metrics, **{"provenance": RowProvenance(), **more})


def table(*rows: Row, **source: Any) -> Table:
    return Table(comparison="mine", provenance=provenance(**source), rows=list(rows))


def compared(a: Figure, b: Figure, name: str = LOSS, **source: Any) -> Agreement:
    return agreement(table(row("dense", {name: a})), table(row("dense", {name: b}), **source))


def the_one(found: Agreement) -> Apart:
    (apart,) = [each for row in found.rows for each in row.found]
    return apart


def text(found: Agreement) -> str:
    """Each thing on one line, however wide."""
    return re.sub(r"\n {4,}", " ", "\n".join(lines(found)))


def test_on_one_machine_the_last_digit_counts() -> None:
    a = figure(2.0, 1.9, 2.1)
    assert compared(a, a).agrees
    near = figure(math.nextafter(2.0, 3), 1.9, 2.1)
    assert not compared(a, near).agrees
    assert "2 → 2.0000000000000004: +4.44e-16 (+2e-14%)" in text(compared(a, near))


@pytest.mark.parametrize("changed", [{"low": 1.8}, {"seeds": [1.5, 2.5]}], ids=["an end", "the seeds"])
def test_so_do_the_interval_and_every_seed(changed: dict[str, Any]) -> None:
    a = figure(2.0, 1.9, 2.1, seeds=[1.0, 3.0])
    found = compared(a, a.model_copy(update=changed))
    assert not found.agrees
    assert "2 in both" in text(found)


@pytest.mark.parametrize(
    ("what", "source"),
    [
        ("CPU x → another", ELSEWHERE),
        ("torch 2.13.0 → 2.12.0", {"packages": {"torch": "2.12.0"}}),
        ("threads 2 → 1", {"threads": 1}),
        ("device cpu → cuda", {"device": "cuda"}),
        ("dtype float32 → bfloat16", {"dtype": "bfloat16"}),
        ("Python 3.11.7 → 3.12.0", {"python": "3.12.0"}),
        ("os Linux → Darwin", {"os": "Darwin"}),
        ("settings c0ffee → 0ther", {"config_hash": "0ther"}),
    ],
)
def test_elsewhere_the_intervals_count_and_it_is_said_why(what: str, source: dict[str, Any]) -> None:
    found = compared(figure(2.0, 1.9, 2.1), figure(2.05, 1.95, 2.15), **source)
    assert found.agrees
    assert found.unlike == [what]
    assert f"not the same, so that digits may differ: {what}" in text(found)


def test_another_kernel_is_another_machine() -> None:
    numba, plain = (RowProvenance(kernels={"topk": name}) for name in ("cpu", "reference"))
    a, b = row("dense", {LOSS: figure(2.0, 1.9, 2.1)}, provenance=numba), row("dense", {LOSS: figure(2.01, 1.9, 2.1)})
    assert agreement(table(a), table(b.model_copy(update={"provenance": plain}))).unlike == [
        "kernel topk cpu → reference"
    ]


def test_another_commit_or_text_is_said_and_excuses_nothing() -> None:
    found = compared(figure(2.0, 1.9, 2.1), figure(2.05, 1.9, 2.2), commit="123456789abc", corpus_hash="cafe")
    assert not found.agrees
    assert "not the same: commit abc → 12345678, text beef → cafe" in text(found)


@pytest.mark.parametrize(
    ("b", "agrees"),
    [
        (figure(2.1, 2.0, 2.2), True),  # in the other's interval
        (figure(2.14, 2.04, 2.24), True),  # 0.14 apart, √(0.1² + 0.1²) = 0.1414 allowed
        (figure(2.15, 2.05, 2.25), False),
        (figure(1.85, 1.75, 1.95), False),  # either way
        (figure(2.15, 2.149, 2.6), False),  # the half-width that faces the other counts, not the far one
        (figure(1.86, 1.0, 1.96), True),
        (figure(2.1), True),  # one interval is enough to lie in
        (figure(2.11), False),
    ],
)
def test_elsewhere_two_figures_may_differ_by_as_much_as_both_intervals_allow(b: Figure, agrees: bool) -> None:
    a = figure(2.0, 1.9, 2.1)
    assert compared(a, b, **ELSEWHERE).agrees == agrees
    turned = agreement(table(row("dense", {LOSS: b})), table(row("dense", {LOSS: a}), **ELSEWHERE))
    assert turned.agrees == agrees  # whichever comes first


def test_how_far_apart_is_said_in_intervals() -> None:
    found = compared(figure(2.0, 1.9, 2.1), figure(2.5, 2.5, 2.7), **ELSEWHERE)
    assert the_one(found).times == pytest.approx(5)
    assert "2.00 [1.90, 2.10] → 2.50 [2.50, 2.70]: +0.5 (+25.0%), 5.0 times what intervals allow" in text(found)


def test_a_count_is_the_same_everywhere() -> None:
    found = compared(figure(100.0, saw=None), figure(101.0, saw=None), COUNT, **ELSEWHERE)
    assert not found.agrees
    assert "cost/parameters  100 → 101: +1 (+1.0%), where none is allowed" in text(found)
    # Several seeds give a count an interval that has no width.
    assert not compared(
        figure(100.0, 100.0, 100.0, saw=None), figure(101.0, 101.0, 101.0, saw=None), COUNT, **ELSEWHERE
    ).agrees


def test_what_was_measured_without_an_interval_is_not_judged_elsewhere_and_said() -> None:
    found = compared(figure(0.73), figure(0.75), "usage/zipf_r2", **ELSEWHERE)
    assert found.agrees
    assert "not judged: 1 figures differ that have no interval, most usage/zipf_r2 of dense, 0.73 → 0.75" in text(found)
    assert not compared(figure(0.73), figure(0.75), "usage/zipf_r2").agrees  # here digits count


def test_timings_are_never_compared() -> None:
    a, b = (row("dense", {LOSS: figure(2.0), "cost/seconds": figure(s, timing=True)}) for s in (1.0, 9.0))
    found = agreement(table(a), table(b))
    assert found.agrees
    assert "1 timings are never compared" in text(found)
    assert agreement(table(a), table(row("dense", {LOSS: figure(2.0)}))).agrees  # nor missed


def test_another_metric_version_or_unit_is_not_compared_and_does_not_agree() -> None:
    for b, says in ((figure(2.0, version=2), "metric version 1 → 2"), (figure(2.0, unit="nat"), "bit → nat")):
        found = compared(figure(2.0), b)
        assert not found.agrees
        assert f"loss: not compared, {says}: bits_per_byte" in text(found)
        assert "0 of 1 figures differ, in 0 of 1 rows" in text(found)
        assert "1 cannot be compared" in text(found)


def test_a_figure_that_only_one_has_differs() -> None:
    more = table(row("dense", {LOSS: figure(2.0), "loss/carried": figure(1.0)}))
    less = table(row("dense", {LOSS: figure(2.0)}))
    assert "loss: gone: carried" in text(agreement(more, less))
    assert "loss: only in B: carried" in text(agreement(less, more))
    none = table(row("dense", {LOSS: figure(2.0)}, not_applicable={"loss/carried": "too few"}))
    assert "loss: n/a in B (too few): carried" in text(agreement(more, none))
    assert "loss: n/a in A (too few): carried" in text(agreement(none, more))
    assert not any(agreement(*pair).agrees for pair in ((more, less), (less, more), (more, none), (none, more)))
    assert agreement(none, less).agrees  # neither has it


def test_a_metric_that_failed_takes_its_figures_with_it_in_one_line() -> None:
    a = table(row("dense", {"joint/lift": figure(1.0), "joint/excess": figure(2.0)}))
    b = table(row("dense", {}, not_applicable={"joint/failed": "ValueError: no pair"}))
    assert re.search(r"joint: n/a in B \(ValueError: no pair\): (lift, excess|excess, lift)\n", text(agreement(a, b)))


def test_a_row_that_only_one_has_differs_with_all_its_figures() -> None:
    one, both = (
        table(row("dense", {LOSS: figure(2.0)})),
        [row("dense", {LOSS: figure(2.0)}), row("peer", {LOSS: figure(1.0)})],
    )
    for pair, says in (((one, table(*both)), "only in B"), ((table(*both), one), "gone")):
        found = agreement(*pair)
        assert not found.agrees
        assert f"peer: the whole row is {says} (1 figures)" in text(found)
        assert "total: 1 of 2 figures differ, in 1 of 2 rows" in text(found)


def test_a_row_whose_settings_stand_in_another_order_is_the_same_row() -> None:
    a, b = (
        table(row(name, {LOSS: figure(2.0)}))
        for name in ("moex[k=2,router=linear]+topk", "moex[router=linear,k=2]+topk")
    )
    assert agreement(a, b).agrees
    c = table(row("moex[k=3,router=linear]+topk", {LOSS: figure(2.0)}))
    assert not agreement(a, c).agrees


def test_it_is_read_by_row_the_largest_first() -> None:
    def world(shift: float) -> Table:
        small, large = (
            figure(2 + shift, 1.9 + shift, 2.1 + shift),
            figure(2 + 3 * shift, 1.9 + 3 * shift, 2.1 + 3 * shift),
        )
        figures = {"loss/small": small, "loss/large": large, "loss/same": figure(1.0, 0.5, 1.5)}
        rows = [row("little", {"loss/small": small}), row("much", figures), row("none", {"loss/same": figure(1.0)})]
        return table(*rows, **(ELSEWHERE if shift else {}))

    said = text(agreement(world(0), world(1.0)))
    assert [line.split(":")[0] for line in said.splitlines() if "figures differ" in line] == ["much", "little", "total"]
    assert said.index("loss/large") < said.index("loss/small")
    assert "much: 2 of 3 figures differ" in said
    assert "none" not in said
    assert said.splitlines()[-1] == "total: 3 of 5 figures differ, in 2 of 3 rows"


def test_no_line_is_wider_than_a_terminal_and_no_figure_is_parted_from_its_interval() -> None:
    name = "planted_pairs/conjunctions_that_are_flagged_among_those_that_were_tested_of_all"
    a, b = figure(123456.75, 123000.25, 124000.5), figure(923456.75, 923000.25, 924000.5)
    said = list(lines(compared(a, b, name, **ELSEWHERE)))
    assert max(map(len, said)) <= WIDTH
    assert any("123,457 [123,000, 124,000] → 923,457 [923,000, 924,000]:" in line for line in said)
