"""How many seeds a difference needs, from how much seeds differed in a table that is there."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from scipy import stats

from harness.tables.table import Table

MOST = 200
POWER = 0.8


def seeds_needed(spread: float, difference: float, level: float = 0.95) -> int | None:
    """The fewest seeds with which a true difference is resolved four times in five, where paired differences vary by
    `spread` from seed to seed: (t₀.₉₇₅ + t₀.₈) · spread / √n ≤ difference, n − 1 degrees of freedom. None: above MOST.

    What the documents add is left out: more text mends that, and seeds do not.
    """
    for n in range(2, MOST + 1):
        t = stats.t.ppf((1 + level) / 2, n - 1) + stats.t.ppf(POWER, n - 1)
        if t * spread / math.sqrt(n) <= difference:
            return n
    return None


def seed_lines(table: Table, baseline: str, metrics: Sequence[str], difference: float) -> Iterator[str]:
    """A line for every metric and row that has several seeds beside the baseline's."""
    rows = {row.system: row for row in table.rows}
    base = rows.get(baseline)
    for metric in metrics:
        for row in table.rows:
            if base is None or row is base or metric not in row.metrics or metric not in base.metrics:
                continue
            mine = dict(zip(row.seeds, row.metrics[metric].seeds, strict=True))
            theirs = dict(zip(base.seeds, base.metrics[metric].seeds, strict=True))
            paired = [a - b for seed, a in mine.items() if a is not None and (b := theirs.get(seed)) is not None]
            if len(paired) < 2:
                continue
            spread = float(np.std(paired, ddof=1))
            needed = seeds_needed(spread, difference)
            how_many = f"more than {MOST}" if needed is None else str(needed)
            yield (
                f"{metric}, {row.system} minus {baseline}: varies by {spread:.3g} over {len(paired)} seeds; "
                f"{how_many} seeds resolve {difference:g} four times in five"
            )
