"""How systems look."""

from __future__ import annotations

import pytest

from harness.report.style import COLOURS, GREY, SHAPES, marks, sweep
from harness.tables import build
from harness.tables.build import SeedResult
from harness.tables.measurement import Measurement
from harness.tables.table import RowProvenance, Table

from ..tables.test_table import provenance


def of(*systems: str) -> Table:
    found = [Measurement("loss/bits_per_byte", 2.0, "bit/byte", "lower", 1)]
    kinds = ["dictionary" if "+" in system else "subject" for system in systems]
    results = [SeedResult(s, k, 0, found, RowProvenance()) for s, k in zip(systems, kinds, strict=True)]  # pyright: ignore[reportArgumentType]
    return build.build("planted", results, provenance(), None)


def luminance(colour: str) -> float:
    """Relative luminance of sRGB (WCAG 2.2)."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("colour", [*COLOURS, GREY])
def test_every_colour_can_be_read_on_white(colour: str) -> None:
    assert 1.05 / (luminance(colour) + 0.05) >= 4.5


def test_the_family_of_the_marker_says_the_road() -> None:
    found = marks(of("dense", "dense-relu", "dense+topk", "dense+transcoder", "peer", "pools", "peer[untrained=true]"))
    assert [mark.shape for mark in found.values()] == [
        "circle", "circle", "square", "diamond", "triangle-up", "triangle-down", "cross",
    ]  # fmt: skip
    families = [set(family) for family in SHAPES.values()]
    assert sum(map(len, families)) == len(set().union(*families))


def test_up_to_sixteen_systems_each_have_a_mark_of_their_own() -> None:
    found = marks(of(*(f"arch{i}" for i in range(16))))
    assert len({(mark.colour, mark.shape) for mark in found.values()}) == 16


def test_of_many_rows_those_that_differ_in_brackets_alone_share_a_mark() -> None:
    found = marks(of("peer", *(f"dense+topk[k={k}]" for k in range(9)), *(f"dense+relu[k={k}]" for k in range(9))))
    assert {mark.label for mark in found.values()} == {"peer", "dense+topk", "dense+relu"}


@pytest.mark.parametrize(
    ("system", "line"),
    [
        ("dense+topk[k=8,n_latents=512]", "dense+topk"),
        ("dense[d_ff=3]+topk[n_latents=3,layers=[1],k=2]", "dense[d_ff=3]+topk[layers=[1]]"),
        ("dense+topk[layers=[1],objective=end_to_end]", "dense+topk[layers=[1],objective=end_to_end]"),
        ("pools[max_experts=2,side_width=0]", "pools[side_width=0]"),
        ("dense+topk", "dense+topk"),
    ],
)
def test_a_line_is_named_by_what_the_sweep_does_not_vary(system: str, line: str) -> None:
    assert sweep(system) == line
