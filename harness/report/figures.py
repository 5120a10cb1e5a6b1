"""Which figures a comparison has, and their pictures. The same table gives the same bytes: no dates, nothing random."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.base.files import write_atomically
from harness.report import (
    above_control,
    active,
    autointerp,
    compute,
    concepts,
    dictionary_sweep,
    difference,
    faithfulness,
    kept,
    losses,
    specialisation,
    training,
    usage,
)
from harness.report.curves import Curve
from harness.report.drawing import Drawing
from harness.tables.table import Table


def drawings(table: Table, curves: Sequence[Curve]) -> list[Drawing]:
    """Every figure that the table has something for, the answer first."""
    found = [
        difference.draw(table),
        *above_control.draw(table),
        *autointerp.draw(table),
        *concepts.draw(table),
        *active.draw(table),
        *dictionary_sweep.draw(table),
        kept.draw(table),
        *faithfulness.draw(table),
        *specialisation.draw(table),
        losses.draw(table),
        compute.draw(table),
        usage.draw(table),
        *training.draw(table, curves),
    ]
    return [one for one in found if one is not None]


def write(drawn: Sequence[Drawing], folder: Path, spared: Sequence[str] = ()) -> list[Path]:
    """A PNG of each into `folder`; pictures of an earlier run that are not among them go, but for those `spared`."""
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / f"{one.name}.png" for one in drawn]
    for stale in {*folder.glob("*.png"), folder / "overview.html"} - {*written, *(folder / name for name in spared)}:
        stale.unlink(missing_ok=True)
    for one, path in zip(drawn, written, strict=True):
        write_atomically(path, one.png())
    return written
