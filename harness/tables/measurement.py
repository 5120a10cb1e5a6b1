"""One figure that a metric found for one system and seed, with what its interval is computed from."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

Direction = Literal["lower", "higher", "none"]


@dataclass(frozen=True)
class Measurement:
    """A named figure.

    `replicates` `[n_resamples]` holds the same figure on bootstrap resamples of the evaluation documents (or of the
    units, where documents cannot be resampled without bias: see `resampled`). Resample b draws the same documents in
    every system and seed, so differences between systems are paired. None: the figure has no sampling error (a
    parameter count) or none that we can state.

    `saw`: the text that the figure was measured on, in a few words, such as "4,032 targets in 64 sequences".

    `reason`: where the value is nan, why, and what would be needed; it stands in the table in place of a figure.

    `timing`: a clock or a meter gave it, so that it differs from run to run.
    """

    name: str
    value: float
    unit: str
    direction: Direction
    version: int
    replicates: np.ndarray | None = None
    resampled: Literal["documents", "units", "examples"] | None = None
    reason: str | None = None
    saw: str | None = None
    timing: bool = False


BY_CONSTRUCTION = "by construction: the units are the model"  # why a native system has nothing to splice


def not_applicable(names: Iterable[str], version: int, reason: str) -> list[Measurement]:
    """These figures, which a system cannot have."""
    return [Measurement(name, math.nan, "", "none", version, reason=reason) for name in names]


def save_measurements(folder: Path, measurements: Sequence[Measurement], kernels: dict[str, str]) -> None:
    """measurements.json and, for those that were resampled, replicates.npz in a stage folder."""
    rows = [{k: v for k, v in vars(m).items() if k != "replicates"} for m in measurements]
    (folder / "measurements.json").write_text(json.dumps({"measurements": rows, "kernels": kernels}, indent=1))
    arrays = {str(i): m.replicates for i, m in enumerate(measurements) if m.replicates is not None}
    np.savez(folder / "replicates.npz", **cast(Any, arrays))


def load_measurements(folder: Path) -> tuple[list[Measurement], dict[str, str]]:
    """What `save_measurements` left: the measurements, and op -> implementation that ran for them."""
    stored = json.loads((folder / "measurements.json").read_text())
    with np.load(folder / "replicates.npz", allow_pickle=False) as arrays:
        found = [Measurement(**row, replicates=arrays.get(str(i))) for i, row in enumerate(stored["measurements"])]
    return found, stored["kernels"]
