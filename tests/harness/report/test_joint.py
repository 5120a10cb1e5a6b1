"""Figures of joint structure."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

from harness.report import figures, joint
from harness.tables import build, table
from harness.tables.build import SeedResult
from harness.tables.measurement import Measurement
from harness.tables.table import RowProvenance

from ..tables.test_table import provenance


def result(system: str, share: float = 0.3, floor: float = 0.1) -> SeedResult:
    values = {
        "joint/excess_share": share,
        "joint/floor_share": floor,
        "joint/conjunction": 2 * share,
        "joint/conjunction_floor": floor,
    }
    found = [
        Measurement(name, value, "", "lower", 1, np.linspace(0.9, 1.1, 50) * value, "documents")
        for name, value in values.items()
    ]
    return SeedResult(system, "subject", 0, found, RowProvenance())


def of(*rows: SeedResult) -> table.Table:
    return build.build("planted", list(rows), provenance(), None)


def test_a_system_stands_beside_its_floor_and_one_without_figures_is_not_drawn(tmp_path: Path) -> None:
    rows = of(result("dense"), result("peer"), SeedResult("mute", "subject", 0, [], RowProvenance()))
    drawn = {path.name for path in figures.write(rows, tmp_path, {})}
    assert {"joint_excess.png", "joint_conjunction.png"} <= drawn
    assert "joint_against_active.png" not in drawn
    _, axes = plt.subplots()
    assert joint.beside_floor(axes, rows, joint.SHARE, joint.FLOOR_SHARE, "")
    assert [label.get_text() for label in axes.get_yticklabels()] == ["dense", "peer"]
    plt.close()


def test_systems_far_apart_share_a_logarithmic_axis_and_others_one_from_zero() -> None:
    for far, scale in ((0.2, "linear"), (0.002, "log")):
        _, axes = plt.subplots()
        joint.beside_floor(axes, of(result("dense"), result("peer", far, far)), joint.SHARE, joint.FLOOR_SHARE, "")
        assert axes.get_xscale() == scale
        plt.close()


def test_rows_that_differ_in_active_experts_alone_make_a_line_in_their_order() -> None:
    shares = {12: 0.1, 3: 0.3, 6: 0.2}
    rows = [result(f"pools[max_experts={active},side_width=0]", share) for active, share in shares.items()]
    _, axes = plt.subplots()
    assert joint.against_active(axes, of(*rows, result("peer"), result("pools[max_experts=9]")))
    lines = {container.get_label(): container.lines[0] for container in axes.containers}  # pyright: ignore[reportAttributeAccessIssue]
    assert list(lines) == ["pools[side_width=0]", "pools[side_width=0]: random directions"]
    assert list(lines["pools[side_width=0]"].get_xdata()) == [3, 6, 12]
    assert list(lines["pools[side_width=0]"].get_ydata()) == pytest.approx([0.3, 0.2, 0.1])
    plt.close()


def test_without_such_rows_nothing_is_drawn() -> None:
    _, axes = plt.subplots()
    assert not joint.against_active(axes, of(result("pools"), result("pools[max_experts=3]")))
    assert not joint.beside_floor(
        axes, of(SeedResult("mute", "subject", 0, [], RowProvenance())), joint.SHARE, joint.FLOOR_SHARE, ""
    )
    plt.close()
