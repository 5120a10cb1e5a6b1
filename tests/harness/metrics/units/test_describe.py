"""What is said of a unit, against the world of conftest.py, where it was counted by hand: 594 words in all."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from harness.metrics import autointerp
from harness.metrics.autointerp.firings import Firings
from harness.metrics.units.chosen import choose
from harness.metrics.units.contexts import levels_of, near_misses
from harness.metrics.units.describe import histogram
from harness.metrics.units.left import Left, StrongPair
from harness.metrics.units.reports import Context, Explanation, Partner, Unit, UnitReports
from harness.metrics.units.text import CodedText
from harness.run.stages.units import STRONGEST
from harness.systems.system import Encoded
from kernels.codes import Codes

A, B, C, D = ("mlp_out.0", 2), ("mlp_out.0", 5), ("mlp_out.1", 1), ("mlp_out.1", 7)


def of(reports: UnitReports, unit: tuple[str, int]) -> Unit:
    return next(found for found in reports.units if (found.site, found.unit) == unit)


def partner(unit: Unit, other: tuple[str, int]) -> Partner:
    return next(found for found in unit.partners if (found.site, found.unit) == other)


def words(context: Context, reports: UnitReports) -> list[str]:
    return [reports.pieces[piece] for piece in context.p]


def test_every_unit_that_fires_is_described_and_those_that_do_not_are_counted(reports: UnitReports) -> None:
    assert [(unit.site, unit.unit) for unit in reports.units] == [A, B, C, D]
    assert [(site.site, site.n_units, site.live, site.described) for site in reports.sites] == [
        ("mlp_out.0", 8, 2, 2),
        ("mlp_out.1", 8, 2, 2),
    ]
    assert (reports.system, reports.seed, reports.documents, reports.strongest) == ("world", 3, 6, 4)


def test_end_of_text_is_neither_counted_nor_shown(reports: UnitReports) -> None:
    assert reports.tokens == 6 * 99
    shown = {piece for unit in reports.units for context in unit.contexts() for piece in context.p}
    assert "<end>" not in {reports.pieces[piece] for piece in shown}


def test_firings_density_and_strengths(reports: UnitReports) -> None:
    a = of(reports, A)
    assert a.fired == 36
    assert a.density == pytest.approx(36 / 594, abs=1e-6)
    assert (a.mean_strength, a.max_strength) == (3.5, 6.0)
    assert of(reports, B).fired == 54
    assert of(reports, D).fired == 2


def test_the_histogram_has_equal_bins_in_log_strength(reports: UnitReports) -> None:
    bins = of(reports, A).histogram
    # 16 log(k) / log(6) for k of 1 to 6: 0, 6.2, 9.8, 12.4, 14.4, 16.
    assert bins.counts == (6, 0, 0, 0, 0, 0, 6, 0, 0, 6, 0, 0, 6, 0, 6, 6)
    assert (bins.low, bins.high) == (1.0, 6.0)
    assert histogram(np.full(5, 2.0)).counts == (5, *[0] * 15)


def test_the_strongest_firings_come_from_different_documents(reports: UnitReports) -> None:
    a = of(reports, A)
    assert [context.d for context in a.top] == [5, 4, 3, 2, 1, 0]
    first = a.top[0]
    # The first w3 of the last document: two words before it, eight after, cut where the document begins.
    assert words(first, reports) == [f"w{n}" for n in (1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2)]
    assert first.at == 2
    assert first.s == (0, 0, 99, *[0] * 8)
    assert a.top[-1].s[2] == 99 // 6


def test_weaker_firings_come_from_every_third_of_the_strengths(reports: UnitReports) -> None:
    levels = [context.s[context.at] for context in of(reports, A).quantiles]
    thirds = [{99, 82}, {66, 49}, {33, 16}]  # of 99: 6 and 5 sixths, 4 and 3, 2 and 1
    assert len(levels) == 6
    assert all(level in thirds[place // 2] for place, level in enumerate(levels))
    tops = {(context.d, context.p, context.at) for context in of(reports, A).top}
    assert not tops & {(context.d, context.p, context.at) for context in of(reports, A).quantiles}


def test_near_misses_are_on_the_units_tokens_and_never_fire(reports: UnitReports) -> None:
    for unit, on in ((A, {"w3"}), (B, {"w3", "w4"}), (C, {"w3"}), (D, {"w1", "w2"})):
        found = of(reports, unit).near_misses
        assert len(found) == 4
        assert all(not any(context.s) for context in found)
        assert {words(context, reports)[context.at] for context in found} <= on


def test_where_there_are_few_near_misses_all_are_shown_and_where_there_are_none_none() -> None:
    ids, here = np.array([1, 2, 3, 4, 1, 2, 3, 4]), np.arange(8)
    text = CodedText(ids, here // 4, ids > 0, here, here + 1, np.zeros(0, int), (), {})
    for fires, missed in (([1], [5]), ([1, 5], [])):
        levels = levels_of(8, np.array(fires), np.ones(len(fires)))
        assert near_misses(text, np.array(fires), levels, np.random.default_rng(0)) == missed


def test_domains_are_shares_of_firings_and_of_all_tokens(reports: UnitReports) -> None:
    third = round(1 / 3, 6)
    assert of(reports, C).domains == (("early", 1.0, round(2 / 3, 6)), ("late", 0.0, third))
    assert of(reports, D).domains == (("early", 0.0, round(2 / 3, 6)), ("late", 1.0, third))


def test_partners_have_the_counts_of_four_states_and_a_context_of_each(reports: UnitReports) -> None:
    b = partner(of(reports, A), B)
    assert (b.neither, b.a, b.b, b.both) == (522, 18, 36, 18)
    assert b.lift == 5.5
    c = partner(of(reports, A), C)  # of another site
    assert (c.neither, c.a, c.b, c.both) == (558, 18, 0, 18)
    assert c.lift == 16.5
    assert c.examples.b is None
    assert [(found.site, found.unit) for found in of(reports, A).partners] == [C, B]  # by lift
    assert of(reports, D).partners == ()
    for state, alone, other in (
        (b.examples.a, True, False),
        (b.examples.b, False, True),
        (b.examples.both, True, True),
    ):
        assert state is not None
        assert (state.s[state.at] > 0, state.t[state.at] > 0) == (alone, other)
    assert b.examples.both is not None
    assert b.examples.both.d == 4  # of the documents where both fire, where A is strongest


def test_promoted_tokens_are_those_that_the_units_write_vector_raises(make_world: Callable[..., Any]) -> None:
    world = make_world()
    reports = world.reports()
    head, layer = world.model.get_output_embeddings().weight, world.model.feed_forwards()[0]
    logits = head @ (world.model.model.norm.weight * layer.w_out.weight[:, 2])
    best, worst = int(logits.argmax()), int(logits.argmin())
    a = of(reports, A)
    names = ["<end>", *(f"w{n}" for n in range(1, 10))]
    assert reports.pieces[a.promoted[0]] == names[best]
    assert reports.pieces[a.suppressed[0]] == names[worst]


def without_numbers(reports: UnitReports, old: dict[int, int]) -> Any:
    """The file with every unit under its old number."""
    data = json.loads(reports.model_dump_json())
    for unit in data["units"]:
        unit["unit"] = old[unit["unit"]]
        for other in unit["partners"]:
            other["unit"] = old[other["unit"]]
    data["units"].sort(key=lambda unit: (unit["site"], unit["unit"]))
    return data


def test_numbering_units_otherwise_changes_their_numbers_and_nothing_else(make_world: Callable[..., Any]) -> None:
    order = (3, 7, 6, 0, 5, 1, 4, 2)
    base, moved = make_world().reports(a_site=1), make_world(order=order).reports(a_site=1)
    assert without_numbers(moved, {new: old for old, new in enumerate(order)}) == json.loads(base.model_dump_json())


def test_the_same_twice_is_the_same_file(make_world: Callable[..., Any], reports: UnitReports) -> None:
    assert make_world().reports() == reports


def test_text_of_one_document_and_without_domains_is_described(make_world: Callable[..., Any]) -> None:
    found = make_world(documents=1, domains=False).reports()
    a = of(found, A)
    assert (found.tokens, found.documents, a.fired) == (99, 1, 6)
    assert {context.d for context in a.top} == {0}
    assert len(a.top) == 6
    # B fires on w3 and on w4 beside it, in equal strength: one of them shows both.
    assert {words(context, found)[context.at] for context in of(found, B).top} == {"w3"}
    assert a.domains == ()


def strong_pair() -> StrongPair:
    said = dict.fromkeys(("neither", "a", "b"), (("w9", 0.5), ("w1", 0.25))) | {"both": (("w7", 0.75),)}
    said["a"] = (("w2", 1.0),)
    return StrongPair(B, A, 0.25, 0.125, "w1w2", "w3", said)


def test_pairs_that_joint_edited_come_first_with_what_the_model_says(make_world: Callable[..., Any]) -> None:
    reports = make_world().reports(Left({}, (strong_pair(),)), a_site=2)
    a, b = of(reports, A), of(reports, B)
    assert a.why == b.why == ("pair",)
    first = a.partners[0]  # C has the larger lift
    assert (first.site, first.unit, first.both) == (*B, 18)
    assert (first.excess, first.floor, first.text, first.token) == (0.25, 0.125, "w1w2", "w3")
    said = first.next
    assert said is not None
    named = {
        state: [reports.pieces[piece] for piece, _ in getattr(said, state)] for state in ("neither", "a", "b", "both")
    }
    # In the pair B comes first: what it says alone is b here.
    assert named == {"neither": ["w9", "w1"], "a": ["w9", "w1"], "b": ["w2"], "both": ["w7"]}
    assert b.partners[0].next is not None
    assert [reports.pieces[piece] for piece, _ in b.partners[0].next.a] == ["w2"]


def test_explained_units_keep_their_explanation_and_one_that_never_fires_is_left_out(
    make_world: Callable[..., Any],
) -> None:
    said = Explanation(text="w3", by="rule", scorer="rule", score=1.0, control="shuffled", control_score=0.5)
    reports = make_world().reports(Left({A: said, ("mlp_out.0", 0): said}, ()), a_site=1)
    assert of(reports, A).explanation == said
    assert [(unit.site, unit.unit, unit.why) for unit in reports.units][:1] == [(*A, ("autointerp",))]
    assert reports.sites[0].described == 1  # as many as were asked for: nobody is drawn beside it
    assert all(unit.explanation is None for unit in reports.units if (unit.site, unit.unit) != A)


def many(order: np.ndarray) -> Firings:
    """64 units, of which unit n fires on n + 1 tokens, under the numbers `order`."""
    import torch

    dense = torch.zeros(200, 64)
    for unit in range(64):
        dense[torch.arange(unit + 1) * 3, int(order[unit])] = 1.0
    codes = Codes.from_dense(dense, torch.zeros(200, 2, dtype=torch.long))
    return Firings.of("s", Encoded(codes, codes.values), 64)


def test_the_sample_takes_equally_many_of_each_quarter_of_densities_whatever_units_are_numbered() -> None:
    def drawn(order: np.ndarray) -> Iterator[int]:
        firings = many(order)
        chosen = choose({"s": firings}, Left({}, ()), 12)["s"]
        assert set(chosen.values()) == {("sample",)}
        yield from sorted(int(firings.counts[column]) for column in chosen)

    counts = list(drawn(np.arange(64)))
    assert [sum(low < count <= low + 16 for count in counts) for low in (0, 16, 32, 48)] == [3, 3, 3, 3]
    assert list(drawn(np.random.default_rng(0).permutation(64))) == counts


def test_units_fire_where_they_do_for_autointerp() -> None:
    assert autointerp.Options().strongest == STRONGEST


def test_a_unit_that_is_not_among_the_strongest_does_not_fire(make_world: Callable[..., Any]) -> None:
    found = make_world().reports(strongest=1)
    # Where both fire (w3 of documents 0, 2 and 4), A is stronger in 2 and 4 and as strong in 0.
    assert of(found, A).fired + of(found, B).fired == 36 + 54 - 18


def test_units_are_sorted_by_site_and_number(make_world: Callable[..., Any], reports: UnitReports) -> None:
    for found in (reports, make_world(order=tuple(range(7, -1, -1))).reports()):
        keys = [(unit.site, unit.unit) for unit in found.units]
        assert all(one < two for one, two in itertools.pairwise(keys))
