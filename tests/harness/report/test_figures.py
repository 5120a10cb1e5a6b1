"""Which figures a table has, and what each puts where."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.report import (
    active,
    autointerp,
    compute,
    concepts,
    curves,
    dictionary_sweep,
    difference,
    faithfulness,
    figures,
    kept,
    specialisation,
    training,
)
from harness.report.curves import Curve
from harness.tables import build, table
from harness.tables.build import SeedResult
from harness.tables.measurement import Measurement
from harness.tables.splice import NATIVE, SPLICED
from harness.tables.table import RowProvenance

from ..tables.test_table import provenance

UNITS, FLOPS = "sparsity/strength_l0_total", "cost/training_flops"


def result(system: str, values: Mapping[str, float], kind: Any = None, **more: Any) -> SeedResult:
    found = [
        Measurement(name, value, "", "lower", 1, value + np.linspace(-0.1, 0.1, 99), "documents")
        for name, value in values.items()
    ]
    return SeedResult(system, kind or ("dictionary" if "+" in system else "subject"), 0, found, RowProvenance(), **more)


def of(*rows: SeedResult, baseline: str | None = None, headline: tuple[str, ...] = (SPLICED,)) -> table.Table:
    return build.build("planted", list(rows), provenance(), baseline, headline)


def scored(loss: float, units: float, flops: float = 1e12) -> dict[str, float]:
    return {NATIVE: loss, SPLICED: loss, UNITS: units, FLOPS: flops}


PLAIN = (
    result("bigram", {NATIVE: 2.5}, "reference"),
    result("dense", scored(2.2, 900)),
    result("peer", scored(2.1, 60)),
)


def points(spec: Any, *fields: str) -> list[tuple[Any, ...]]:
    """Every datum of a specification that has all these fields, each once."""
    found: dict[tuple[Any, ...], None] = {}
    for datum in _values(spec):
        if all(field in datum for field in fields):
            found[tuple(datum[field] for field in fields)] = None
    return list(found)


def _values(spec: Any) -> list[dict[str, Any]]:
    if isinstance(spec, dict):
        own = spec["data"]["values"] if "values" in spec.get("data", {}) else []
        return [*own, *(one for part in spec.values() for one in _values(part))]
    return [one for part in spec for one in _values(part)] if isinstance(spec, list) else []


def names(*rows: SeedResult, **more: Any) -> set[str]:
    return {drawing.name for drawing in figures.drawings(of(*rows, **more), [])}


def test_figures_are_drawn_for_what_the_table_has_and_those_of_an_earlier_run_go(tmp_path: Path) -> None:
    for stale in ("usage.png", "overview.html"):
        (tmp_path / stale).write_bytes(b"of an earlier run")
    written = figures.write(figures.drawings(of(*PLAIN), []), tmp_path)
    assert {path.name for path in written} == {"difference.png", "losses.png"} == {p.name for p in tmp_path.iterdir()}
    (tmp_path / "training.png").write_bytes(b"nobody can draw it again")
    figures.write([], tmp_path, ["training.png"])
    assert {path.name for path in tmp_path.iterdir()} == {"training.png"}


def test_the_same_table_gives_the_same_bytes() -> None:
    for one, two in zip(figures.drawings(of(*PLAIN), []), figures.drawings(of(*PLAIN), []), strict=True):
        assert one.png() == two.png()


def test_the_first_figure_has_the_baseline_at_nothing_and_the_others_at_their_paired_difference() -> None:
    drawn = difference.draw(of(*PLAIN, baseline="dense"))
    assert drawn is not None
    assert points(drawn.spec(), "system", "x", "y") == [("dense", 900, 0.0), ("peer", 60, pytest.approx(-0.1))]


def test_without_a_baseline_it_has_the_loss_itself() -> None:
    drawn = difference.draw(of(*PLAIN))
    assert drawn is not None
    assert [y for (y,) in points(drawn.spec(), "y")] == [2.2, 2.1]


def test_dictionaries_on_top_are_hollow_and_controls_are_left_out_of_it() -> None:
    rows = [
        result("dense+topk", scored(2.3, 40), accounting="equal total"),
        result("dense+topk[on_top=true]", scored(2.3, 40), accounting="same subject", unmatched="on top"),
        result("dense[untrained=true]", scored(9.0, 900), unmatched="it is never trained"),
    ]
    drawn = difference.draw(of(*PLAIN, *rows, baseline="dense"))
    assert drawn is not None
    dots = [layer for layer in drawn.spec()["layer"] if layer["mark"]["type"] == "point"]
    filled = {layer["mark"]["filled"]: {d["system"] for d in _values(layer)} for layer in dots}
    assert filled == {True: {"dense", "peer", "dense+topk"}, False: {"dense+topk[on_top=true]"}}


def test_rows_of_a_sweep_are_joined() -> None:
    drawn = difference.draw(of(*PLAIN, *(result(f"dense+topk[k={k}]", scored(2.3, k)) for k in (4, 8))))
    assert drawn is not None
    (line,) = [layer for layer in drawn.spec()["layer"] if layer["mark"]["type"] == "line"]
    assert {one["system"] for one in _values(line)} == {"dense+topk[k=4]", "dense+topk[k=8]"}


def test_a_figure_whose_x_hardly_varies_is_not_drawn() -> None:
    assert compute.draw(of(*PLAIN)) is None
    assert compute.draw(of(*PLAIN, result("dense-relu", scored(2.4, 9, 5e11)))) is not None


def test_real_units_stand_with_their_controls_in_a_panel_a_system() -> None:
    values = {"rule_balanced_accuracy": 0.7, "other": 1.0}
    measured = {f"autointerp/{name}": value for name, value in values.items()}
    controls = {f"autointerp_controls/rule_balanced_accuracy_{name}": 0.6 for name in ("random_dictionary", "constant")}
    (drawn,) = autointerp.draw(of(result("peer", measured | controls), result("mute", measured)))
    assert points(drawn.spec(), "system", "what", "x")[:2] == [
        ("peer", "real units", 0.7),
        ("peer", "random directions", 0.6),
    ]
    assert autointerp.draw(of(result("peer", measured))) == []


def test_a_headline_figure_that_has_its_control_taken_off_gets_a_rule_where_nothing_is() -> None:
    metric = "joint/together_over_strangers"
    rows = [result("dense[untrained=true]", {metric: 1.0}), result("dense", {metric: 1.2})]
    (drawn,) = (d for d in figures.drawings(of(*rows, headline=(metric,)), []) if "together" in d.name)
    assert [one for one in _values(drawn.spec()) if len(one) == 1] == [{"x": 1.0}]
    assert [system for (system,) in points(drawn.spec(), "system")] == ["dense", "dense[untrained=true]"]


def test_loss_against_units_kept_is_a_line_a_system_in_the_order_of_k() -> None:
    losses = {f"kept/bits_per_byte_k{k}": 5.0 - i for i, k in enumerate((1, 4, 16))}
    made = of(result("dense", losses), result("mute", {}), result("dense[untrained=true]", losses))
    assert [(one["system"], one["x"], one["y"]) for one in kept.points(made)] == [
        ("dense", 1, 5),
        ("dense", 4, 4),
        ("dense", 16, 3),
    ]
    assert kept.draw(of(result("mute", {}))) is None


def dictionary(kind: str, width: int, l0: int, error: float = 0.1) -> SeedResult:
    values = {
        "dictionary/width": width, "dictionary/inference_l0": l0, "dictionary/inference_dead": 0.1,
        "dictionary/inference_under_used": 0.3, "dictionary/held_out_tokens": 1000.0,
        "reconstruction/normalised_mse": error, "reconstruction/explained_variance": 1 - error,
    }  # fmt: skip
    return result(f"dense+{kind}[k={l0},n_latents={width}]", values)


SWEPT = [
    dictionary(kind, n, k, e) for kind, e in (("topk", 0.2), ("relu", 0.3)) for n in (512, 2048) for k in (16, 4, 8)
]


def test_a_sweep_is_a_line_a_kind_and_width_in_the_order_of_its_l0() -> None:
    found = dictionary_sweep.points(of(*SWEPT), dictionary_sweep.ERROR)
    assert [one["x"] for one in found] == [4, 8, 16] * 4
    assert [(one["kind"], one["width"], one["y"]) for one in found[::3]] == [
        ("dense+relu", 512, 0.3), ("dense+relu", 2048, 0.3), ("dense+topk", 512, 0.2), ("dense+topk", 2048, 0.2),
    ]  # fmt: skip
    waste = dictionary_sweep.wasted(of(*SWEPT))
    assert {(one["what"], one["y"]) for one in waste} == {("dead", 10.0), ("under-used or dead", 30.0)}


def test_single_points_are_no_sweep() -> None:
    sweep = {"dictionary_error", "dictionary_variance", "dictionary_waste"}
    assert sweep <= names(*SWEPT)
    assert not sweep & names(dictionary("topk", 512, 8), dictionary("transcoder", 512, 8))


def test_rows_that_differ_in_active_experts_alone_make_a_line_in_their_order() -> None:
    metric = "joint/together_over_strangers"
    rows = [result(f"pools[max_experts={k},side_width=0]", {metric: value}) for k, value in ((12, 0.1), (3, 0.3))]
    found = active.points(of(*rows, result("peer", {metric: 1}), result("pools[max_experts=9]", {metric: 2})), metric)
    assert [(one["line"], one["x"], one["y"]) for one in found] == [
        ("pools[side_width=0]", 3, 0.3),
        ("pools[side_width=0]", 12, 0.1),
    ]
    assert "active_together_over_strangers" in names(*rows, headline=(metric,))


def test_curves_are_means_of_equal_stretches_and_are_read_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "curve.jsonl"
    path.write_text("".join(f'{{"step": {i}, "tokens": {10 * i}, "loss": {i}.5, "lr": 1}}\n' for i in range(240)))
    made = curves.collect({("dense", 0, ""): path, ("gone", 0, ""): tmp_path / "none"})
    assert [(one.system, len(one.tokens), one.points["loss"][:2]) for one in made] == [("dense", 60, [2.0, 6.0])]
    curves.write(made, tmp_path)
    assert curves.read(tmp_path) == made
    assert curves.read(tmp_path / "elsewhere") == []


def test_training_has_a_band_over_seeds_and_dictionaries_apart() -> None:
    learnt = [
        Curve(system="dense", seed=seed, site="", tokens=[1, 2], points={"loss": [4.0 + seed, 3.0]}) for seed in (0, 1)
    ]
    learnt.append(
        Curve(system="dense+topk", seed=0, site="mlp.0", tokens=[1], points={"loss": [9.0], "dead_share": [0.5]})
    )
    made = of(*PLAIN, result("dense+topk", scored(2.3, 40)))
    found = training.bands(made, learnt[:2], "loss")
    assert [(one["tokens"], one["y"], one["y_low"], one["y_high"]) for one in found] == [
        (1, 4.5, 4.0, 5.0), (2, 3.0, 3.0, 3.0),
    ]  # fmt: skip
    longer = Curve(system="dense", seed=2, site="", tokens=[1, 2, 3], points={"loss": [4.5, 3.0, 2.0]})
    assert [one["tokens"] for one in training.bands(made, [*learnt[:2], longer], "loss")] == [1, 2]
    subjects, dictionaries = training.draw(made, learnt)
    assert {system for (system,) in points(subjects.spec(), "system")} == {"dense"}
    assert points(dictionaries.spec(), "system", "panel", "y") == [("dense+topk", "dead share", 0.5)]


def told(coverage: float, units: float, **kinds: float) -> dict[str, float]:
    """What the concepts metric gives of a row."""
    beside = {"coverage": coverage, "coverage_random": 0.2, "coverage_permuted": 0.05, "bag_f1": 0.3, "probe_f1": 0.9}
    each = {f"coverage_{kind}_above_random": value for kind, value in kinds.items()}
    each |= {f"probe_f1_{kind}": 0.9 for kind in kinds}
    return scored(2.0, units) | {f"concepts/{name}": value for name, value in (beside | each).items()}


def test_concepts_stand_beside_what_has_nothing_to_tell_by_kind_and_by_units_at_work() -> None:
    untrained = result("dense[untrained=true]", told(0.25, 900, topic=0.3, concept=0.1))
    rows = [untrained, result("dense", told(0.4, 800, topic=0.7, concept=0.3)), result("peer", scored(2.1, 60))]
    beside, units, by_kind = concepts.draw(of(*rows))
    assert set(points(beside.spec(), "system", "what", "x")) >= {
        ("dense", "units", 0.4), ("dense", "random directions", 0.2), ("dense[untrained=true]", "units", 0.25)
    }  # fmt: skip
    assert points(beside.spec(), "system")[-1] == ("dense[untrained=true]",)  # controls below
    assert points(units.spec(), "system", "x", "y")[0] == ("dense", 800, 0.4)
    assert set(points(by_kind.spec(), "system", "kind", "text")) >= {
        ("dense", "topic", "+0.70"),
        ("dense", "concept", "+0.30"),
    }
    assert not concepts.draw(of(*PLAIN))


def test_losses_on_a_part_of_the_units_are_drawn_by_order_and_share_and_by_count() -> None:
    left = {"best_50_lost": 0.1, "against_75_lost": 2.0, "none": 3.0, "best_50": 0.3, "count_4_lost": 0.2}
    left = {f"faithfulness/{name}": value for name, value in left.items()}
    by_share, by_count = faithfulness.draw(
        of(result("dense", scored(2.0, 800) | left), result("peer", scored(2.1, 60)))
    )
    assert set(points(by_share.spec(), "system", "order", "share", "y")) == {
        ("dense", "what matters most first", 50, 0.1), ("dense", "chosen against the model", 75, 2.0)
    }  # fmt: skip
    assert points(by_count.spec(), "system", "units", "y") == [("dense", 4, 0.2)]
    assert not faithfulness.draw(of(*PLAIN))


def test_knock_outs_and_pools_are_drawn_as_matrices_of_domains() -> None:
    lost = {"without_a_in_a": 0.5, "without_a_in_b": 0.01, "share_0.0_in_a": 0.9, "share_0.1_in_a": 0.1}
    lost |= {"share_1.0_in_a": 0.5, "share_1.1_in_a": 0.5}
    lost = {f"specialisation/{name}": value for name, value in lost.items()}
    matrix, pools = specialisation.draw(of(result("dense", scored(2.0, 800) | lost), result("peer", scored(2.1, 60))))
    assert set(points(matrix.spec(), "system", "without", "domain", "rise")) == {
        ("dense", "a", "a", 0.5), ("dense", "a", "b", 0.01)
    }  # fmt: skip
    assert set(points(pools.spec(), "pool", "domain", "times")) == {
        ("0.0", "a", 1.8), ("0.1", "a", 0.2), ("1.0", "a", 1.0), ("1.1", "a", 1.0)
    }  # fmt: skip
    assert not specialisation.draw(of(*PLAIN))


def test_a_pair_of_concepts_is_drawn_by_a_unit_of_its_own_and_by_two_of_its_parts() -> None:
    ways = {"conjunction_own": 0.7, "conjunction_parts": 0.6, "additive_own": 0.3, "additive_parts": 0.8}
    row = result("dense", told(0.4, 800, topic=0.7) | {f"concepts/{name}": value for name, value in ways.items()})
    *_, pairs = concepts.draw(of(row))
    assert set(points(pairs.spec(), "pairs", "what", "x")) >= {
        ("conjunction pairs", "a unit of its own", 0.7), ("additive pairs", "two units of the parts", 0.8)
    }  # fmt: skip
