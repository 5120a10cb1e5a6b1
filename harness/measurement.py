"""One figure that a metric found for one system and seed, with what its interval is computed from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Direction = Literal["lower", "higher", "none"]


@dataclass(frozen=True)
class Measurement:
    """A named figure.

    `replicates` `[n_resamples]` holds the same figure on bootstrap resamples of the evaluation documents (or of the
    units, where documents cannot be resampled without bias: see `resampled`). Resample b draws the same documents in
    every system and seed, so differences between systems are paired. None: the figure has no sampling error (a
    parameter count) or none that we can state.

    `reason`: where the value is nan, why, and what would be needed; it stands in the table in place of a figure.
    """

    name: str
    value: float
    unit: str
    direction: Direction
    version: int
    replicates: np.ndarray | None = None
    resampled: Literal["documents", "units", "examples"] | None = None
    reason: str | None = None
