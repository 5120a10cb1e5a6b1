"""Verdict and warnings of a table: sentences made of its figures."""

from __future__ import annotations

from typing import Any

from harness.tables.build import SeedResult, build
from harness.tables.markdown import markdown
from harness.tables.measurement import Measurement
from harness.tables.splice import NATIVE, SPLICED, with_splice_cost
from harness.tables.table import RowProvenance, Table
from harness.tables.verdict import verdict
from harness.tables.warnings import AT_AN_END, warnings

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
    (line,) = verdict(found)
    assert line == (
        "Is the joint firing of units the product of the marginals? In 1 of 3 systems (pairs fire together 1.0 to 3.0 "
        "times as often); untrained ones have 3.0 to 3.0, so the question separates nothing."
    )
    assert line in markdown(found)


def test_units_that_carry_little_are_said_to() -> None:
    *_, line = warnings(table(pools={"loss/carried": 0.06}, dense={"loss/carried": 0.9}))
    assert line.startswith("The units of `pools` carry 6% of what its layers do")


def boards(spread: float = 0.02, **probes: float) -> list[str]:
    """What is said of boards where rows have probes with these F1, and intervals of so much of it to either side. Of a
    name, `_untrained`, `_topk` and `_deep` are settings and a dictionary."""
    results = []
    for name, value in probes.items():
        system = name.replace("_untrained", "[untrained=true]").replace("_topk", "+topk").replace("_deep", "[point=x]")
        around = [value * (1 - spread + 2 * spread * i / 99) for i in range(100)] if spread else None
        measured = [
            Measurement(f"concepts/{figure}", value, "F1", "none", 1, around, "documents")  # pyright: ignore
            for figure in ("stream_f1", "stream_f1_square")
        ]
        kind = "dictionary" if "+" in system else "subject"
        results.append(SeedResult(system, kind, 0, measured, RowProvenance()))
    return [line for line in warnings(build("mine", results, provenance(), None)) if line.startswith("Board")]


def test_a_row_whose_probe_is_not_clearly_above_the_untrained_one_has_no_board() -> None:
    (line,) = boards(dense=0.9, peer=0.43, monet=0.39, dense_untrained=0.4)
    assert line == (
        "Board tracking has not emerged in `peer` (0.430), `monet` (0.390): a full linear probe on the last stream "
        "reaches F1 0.400 in `dense[untrained=true]`, and clear would be 0.05 more with intervals "
        "apart. So nothing follows from what units do not know there."
    )
    assert boards(dense=0.46, dense_untrained=0.4) == []  # 0.451 to 0.469 against 0.392 to 0.408
    assert len(boards(dense=0.44, dense_untrained=0.4, spread=0.01)) == 1  # apart, by less than is clear
    assert len(boards(dense=0.60, dense_untrained=0.5, spread=0.1)) == 1  # by more, and the intervals meet
    assert boards(dense=0.60, dense_untrained=0.5, spread=0) == []
    assert len(boards(dense=0.44, dense_untrained=0.4, spread=0)) == 1


def test_a_probe_is_held_against_the_untrained_row_most_like_it() -> None:
    rows = {"peer": 0.5, "peer_untrained": 0.3, "dense_untrained": 0.48, "dense_topk": 0.5}
    assert boards(**rows) == []  # no untrained row with a dictionary to hold that one against
    (line,) = boards(**rows, monet=0.5)
    assert (
        "in `monet` (0.500): a full linear probe on the last stream reaches F1 0.480 in `dense[untrained=true]`" in line
    )  # the best
    (line,) = boards(**rows, dense_untrained_topk=0.49)
    assert "in `dense+topk` (0.500): a full linear probe on the last stream reaches F1 0.490 in `dense[unt" in line
    assert "`dense[untrained=true]+topk`" in line
    assert boards(**rows, dense_untrained_topk_deep=0.49) == []  # a probe elsewhere is another probe


def test_tables_without_a_board_or_an_untrained_row_say_nothing_of_it() -> None:
    assert boards(dense=0.4, peer=0.4) == []
    same = {"concepts/stream_f1": 0.4, "concepts/stream_f1_topic": 0.4}
    assert not any("Board" in line for line in warnings(table(dense=same, denseUNTRAINED=same)))


def test_units_that_were_not_scored_are_said_to_be_left_out() -> None:
    *_, line = warnings(table(peer={"autointerp/scored_share": 0.2}, dense={"autointerp/scored_share": 0.95}))
    assert line.startswith("Of the live units of `peer`, 80% fire too rarely")


def test_a_table_without_these_figures_says_nothing_more() -> None:
    assert verdict(table(dense={"loss/bits_per_byte": 2.0})) == []


def of_seeds(system: str, metric: str, values: list[float], direction: str = "lower", **more: Any) -> list[SeedResult]:
    kind = more.pop("kind", "subject")
    measured = [Measurement(metric, value, "bit/byte", direction, 1) for value in values]  # pyright: ignore
    return [SeedResult(system, kind, seed, [one], RowProvenance(), **more) for seed, one in enumerate(measured)]


def test_rows_are_told_apart_in_a_sentence_by_what_the_headline_resolves() -> None:
    results = [
        *of_seeds("dense", SPLICED, [2.0, 2.1, 1.9]),
        *of_seeds("peer", SPLICED, [1.0, 1.1, 0.9]),
        *of_seeds("pools", SPLICED, [3.0, 3.1, 2.9]),
        *of_seeds("moex", SPLICED, [1.9, 2.2, 1.85]),
    ]
    assert verdict(build("mine", results, provenance(), "dense", [SPLICED])) == [
        "`peer` loses 1 bits per byte less than `dense`.",
        "Spliced bits per byte (lower is better), against `dense`: worse: `pools` +1; not told from it: `moex`.",
    ]


def test_who_loses_less_is_said_with_its_units_its_dead_ones_and_what_is_equal() -> None:
    results = [*of_seeds("dense", SPLICED, [2.0, 2.1, 1.9]), *of_seeds("peer", SPLICED, [1.0, 1.2, 0.8])]
    for one in results:
        for name, value in (("sparsity/strength_l0_total", 20.4), ("usage/dead", 0.26)):
            one.measurements.append(Measurement(name, value, "", "lower", 1))
    matched = provenance(matched="training_flops 2.5e+12, to 2.0%")
    line, *_ = verdict(build("mine", results, matched, "dense", [SPLICED]))
    assert line == (
        "`peer` loses 1.00 [0.75, 1.25] bits per byte less than `dense` at equal training flops, with 20.4 units a "
        "token, in all layers, that carry 95% of what is written; 26% of its units are dead."
    )


def test_units_are_those_that_systems_are_matched_on_where_the_row_has_them() -> None:
    results = [*of_seeds("dense", SPLICED, [2.0, 2.1, 1.9]), *of_seeds("peer", SPLICED, [1.0, 1.2, 0.8])]
    for one in results:
        for name, value in (("sparsity/l0", 30.0), ("sparsity/strength_l0_total", 20.4), ("kept/l0", 2.0)):
            one.measurements.append(Measurement(name, value, "", "lower", 1))
    first = verdict(build("mine", results, provenance(), "dense", [SPLICED]))[0]
    assert "with 2 units a token and layer kept at +0.02 bits per byte." in first


LEFT = "autointerp/rule_balanced_accuracy_above_random"


def test_a_figure_with_its_control_taken_off_is_judged_against_nothing_and_not_against_rows_alone() -> None:
    results = [
        *of_seeds("dense", LEFT, [0.2, 0.21, 0.19], "higher"),
        *of_seeds("peer", LEFT, [0.01, -0.02, 0.015], "higher"),
        *of_seeds("pools", LEFT, [-0.2, -0.21, -0.19], "higher"),
    ]
    made = build("mine", results, provenance(), None, [LEFT])
    assert [row.metrics[LEFT].against_control for row in made.rows] == ["above", "unresolved", "below"]
    (line,) = verdict(made)
    assert line.startswith(
        "Rule balanced accuracy above random (higher is better), against its own control (0): above: `dense`"
    )
    assert "below: `pools`" in line
    assert "not told from it: `peer`" in line


def test_a_ratio_to_its_control_is_judged_against_1() -> None:
    ratio = "joint/together_over_strangers"
    results = [*of_seeds("dense", ratio, [1.0, 1.02, 0.99]), *of_seeds("peer", ratio, [1.5, 1.51, 1.49])]
    made = build("mine", results, provenance(), None, [ratio])
    assert [row.metrics[ratio].against_control for row in made.rows] == ["unresolved", "above"]
    without = build("mine", results, provenance(), None, [])
    assert [row.metrics[ratio].against_control for row in without.rows] == [None, None]  # no headline figure


def test_verdicts_on_controls_are_counted_when_verdicts_are_corrected() -> None:
    """A difference that stands alone among few verdicts falls among many that are nothing."""
    base, close = [2.0, 2.05, 1.95], [1.90, 1.98, 1.84]
    few = [*of_seeds("dense", SPLICED, base), *of_seeds("peer", SPLICED, close)]
    alone = build("mine", few, provenance(), "dense", [SPLICED])
    assert [d.verdict for d in alone.differences] == ["better"]
    nothing = [r for n in range(8) for r in of_seeds(f"s{n}", LEFT, [0.1, -0.1, 0.01], "higher")]
    among = build("mine", [*few, *nothing], provenance(), "dense", [SPLICED, LEFT])
    assert [d.verdict for d in among.differences if d.metric == SPLICED] == ["unresolved"]


def test_a_control_that_is_told_from_its_control_is_warned_of() -> None:
    results = of_seeds("peer[untrained=true]", LEFT, [0.2, 0.21, 0.19], "higher", unmatched="an untrained control")
    said = warnings(build("mine", results, provenance(), None, [LEFT]))
    assert said == [
        "Not matched with the rest: `peer[untrained=true]` (an untrained control).",
        "Rule balanced accuracy above random (higher is better) is told from its control in rows that are "
        "controls themselves: `peer[untrained=true]`.",
    ]


def test_the_part_of_a_dictionary_that_its_subject_paid_is_said() -> None:
    def row(system: str, native: float, spliced: float, **more: Any) -> list[SeedResult]:
        return [
            SeedResult(system, more.get("kind", "subject"), seed, [
                Measurement(NATIVE, native + seed, "bit/byte", "lower", 1),
                Measurement(SPLICED, spliced + seed, "bit/byte", "lower", 1),
            ], RowProvenance(), accounting=more.get("accounting"))
            for seed in range(2)
        ]  # fmt: skip

    results = row("dense", 2.0, 2.0) + row("dense+topk", 2.139, 2.159, kind="dictionary", accounting="equal total")
    made = build("mine", with_splice_cost(results), provenance(), "dense", [SPLICED])
    assert verdict(made)[-1] == (
        "Of the +0.159 of `dense+topk`, +0.139 is its subject, which trained on less, and +0.020 the splice."
    )


def test_rows_chosen_at_an_end_of_what_was_tried_are_warned_of() -> None:
    results = [*of_seeds("dense", SPLICED, [2.0, 2.1, 1.9]), *of_seeds("peer", SPLICED, [2.0, 2.1, 1.9])]
    for one in results[:3]:
        one.notes.append(f"{AT_AN_END}: shape")
    assert warnings(build("mine", results, provenance(), None, [])) == [
        "Chosen at an end of what was tried, so that a better one may lie beyond it: `dense`."
    ]


def test_what_only_counts_tokens_and_loses_less_is_named() -> None:
    counted = of_seeds("kneser_ney", NATIVE, [2.0], kind="reference")
    rows = [*of_seeds("dense", SPLICED, [2.2, 2.2]), *of_seeds("peer", SPLICED, [1.9, 1.9])]
    assert warnings(build("mine", [*counted, *rows], provenance(), None, [])) == [
        "`kneser_ney`, which only counts tokens, loses less (2.000 bits per byte) than `dense`."
    ]
    assert warnings(build("mine", [*counted, *rows[2:]], provenance(), None, [])) == []
    floor = of_seeds("floor", NATIVE, [1.0], kind="reference")  # knows the text's probabilities: all lose more than it
    assert warnings(build("mine", [*floor, *rows], provenance(), None, [])) == []
