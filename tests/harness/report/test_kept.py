"""The figure of loss against units kept."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from harness.report import figures, kept
from harness.tables import build
from harness.tables.build import SeedResult
from harness.tables.measurement import Measurement
from harness.tables.table import RowProvenance

from ..tables.test_table import provenance


def result(system: str, losses: dict[int, float]) -> SeedResult:
    found = [
        Measurement(f"kept/bits_per_byte_k{k}", loss, "bit/byte", "lower", 1, loss + np.linspace(-0.1, 0.1, 99))
        for k, loss in losses.items()
    ]
    return SeedResult(system, "subject", 0, found, RowProvenance())


def test_a_line_is_a_system_in_the_order_of_k_and_one_without_figures_is_not_drawn(tmp_path: Path) -> None:
    rows = [result("dense", {16: 2.0, 1: 4.0, 4: 3.0}), result("peer", {1: 3.5, 2: 2.5}), result("mute", {})]
    made = build.build("planted", rows, provenance(), None)
    _, axes = plt.subplots()
    assert kept.against_k(axes, made)
    assert [line.get_label() for line in axes.lines] == ["dense", "peer"]
    assert list(axes.lines[0].get_xdata()) == [1, 4, 16]
    assert list(axes.lines[0].get_ydata()) == [4.0, 3.0, 2.0]
    plt.close()
    assert "loss_against_kept.png" in {path.name for path in figures.write(made, tmp_path, {})}
    nothing = build.build("planted", rows[2:], provenance(), None)
    assert "loss_against_kept.png" not in {path.name for path in figures.write(nothing, tmp_path, {})}
