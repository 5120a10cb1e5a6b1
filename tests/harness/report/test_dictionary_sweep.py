"""Figures of a sweep over dictionaries."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import pytest

from harness.report import dictionary_sweep, figures
from harness.tables import build, table
from harness.tables.build import SeedResult
from harness.tables.measurement import Measurement
from harness.tables.table import RowProvenance

from ..tables.test_table import provenance

SWEEP = {"dictionary_error.png", "dictionary_variance.png", "dictionary_waste.png"}


def result(system: str, width: float, l0: float, error: float = 0.1) -> SeedResult:
    figures_of_row = {
        "dictionary/width": width,
        "dictionary/inference_l0": l0,
        "dictionary/inference_dead": 0.1,
        "dictionary/inference_under_used": 0.3,
        "dictionary/held_out_tokens": 1000.0,
        "reconstruction/normalised_mse": error,
        "reconstruction/explained_variance": 1 - error,
    }
    found = [Measurement(name, value, "", "none", 1) for name, value in figures_of_row.items()]
    return SeedResult(system, "dictionary", 0, found, RowProvenance())


def of(*rows: SeedResult) -> table.Table:
    return build.build("planted", list(rows), provenance(), None)


SWEPT = [
    result(f"dense+{kind}[k={k},n_latents={n}]", n, k, error)
    for kind, error in (("topk", 0.2), ("relu", 0.3))
    for n in (512, 2048)
    for k in (16, 4, 8)
]


def test_a_sweep_is_drawn_and_single_points_are_not(tmp_path: Path) -> None:
    drawn = {path.name for path in figures.write(of(*SWEPT), tmp_path / "sweep", {})}
    assert drawn & SWEEP == SWEEP
    alone = of(result("dense+topk", 512, 8), result("dense+transcoder[layers=[1],objective=end_to_end]", 512, 8))
    assert not SWEEP & {path.name for path in figures.write(alone, tmp_path / "alone", {})}


def test_a_line_is_a_kind_at_a_width_in_the_order_of_its_l0() -> None:
    _, axes = plt.subplots()
    assert dictionary_sweep.against_l0(axes, of(*SWEPT), "reconstruction/normalised_mse", "error")
    lines = [container.lines[0] for container in axes.containers]  # pyright: ignore[reportAttributeAccessIssue]
    assert len(lines) == 4
    assert all(list(line.get_xdata()) == [4, 8, 16] for line in lines)
    assert sorted(line.get_ydata()[0] for line in lines) == pytest.approx([0.2, 0.2, 0.3, 0.3])
    plt.close()


@pytest.mark.parametrize(
    ("system", "kind"),
    [
        ("dense+topk[k=8,n_latents=512]", "dense+topk"),
        ("dense[d_ff=3]+topk[n_latents=3,layers=[1],k=2]", "dense[d_ff=3]+topk[layers=[1]]"),
        ("dense+topk[layers=[1],objective=end_to_end]", "dense+topk[layers=[1],objective=end_to_end]"),
        ("dense+topk", "dense+topk"),
    ],
)
def test_a_line_is_named_by_what_the_sweep_does_not_vary(system: str, kind: str) -> None:
    assert dictionary_sweep._kind(of(result(system, 512, 8)).rows[0]) == kind


def test_many_rows_share_a_colour_by_kind() -> None:
    style = figures._style(of(*SWEPT, result("dense+a", 1, 1), result("dense+b", 1, 1), result("dense+c", 1, 1)))
    assert len({style[row.system] for row in SWEPT}) == 2
    few = figures._style(of(*SWEPT[:3]))
    assert len(set(few.values())) == 3
