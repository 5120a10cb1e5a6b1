"""Which figures MLflow gets as metrics: few enough for a page, rounded to what is known.

All of them stand in table.json and, of one row and seed, in the artifact figures.json.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from harness.tables.cells import short_name
from harness.tables.counts import NAMES, of_table
from harness.tables.measurement import Measurement
from harness.tables.splice import COST, NATIVE, SPLICED
from harness.tables.table import Table
from harness.tracking.curves import metric_key

MOST = 40  # metrics of a run
OF_CURVES = 12  # of them those that have a value at every step
DIGITS = 6
LOG_UNITS = "sparsity/log10_units"  # MLflow 3.17's scatter charts have no logarithmic axis

ASKED = (
    NATIVE,
    SPLICED,
    COST,
    *NAMES,
    "usage/dead",
    "cost/training_flops",
    "cost/parameters",
    "cost/tokens_per_second",
    "cost/training_seconds",
    "cost/peak_memory",
    "loss/carried",
    "reconstruction/explained_variance",
    "dictionary/inference_explained_variance",
    "joint/together_over_strangers",
    "joint/excess_over_floor",
    "joint/pairs_code",
    "joint/meaning_kept",
    "autointerp/rule_balanced_accuracy_above_random",
    "autointerp/rule_balanced_accuracy",
    "autointerp/rule_random_as_merged",
    "autointerp/simulation_pearson",
    "autointerp/simulation_pearson_above_random",
    "autointerp/ablation_over_random",
    "usage/unevenness",
    "search/training_flops",
)
INTERPRETABILITY = tuple(name for name in ASKED if name.split("/")[0] in ("joint", "autointerp"))


def rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def final(measurements: Sequence[Measurement], headline: Sequence[str]) -> dict[str, float]:
    """Of one row and seed: the headline first, then what is most asked; those that are numbers."""
    found = {m.name: m.value for m in measurements if math.isfinite(m.value)}
    wanted = [name for name in dict.fromkeys((*headline, *ASKED)) if name in found][: MOST - OF_CURVES - 1]
    sent = {metric_key(name): rounded(found[name]) for name in wanted}
    units = next((found[name] for name in NAMES if found.get(name, 0.0) > 0), None)
    return sent if units is None else {**sent, LOG_UNITS: rounded(math.log10(units))}


def not_numbers(measurements: Sequence[Measurement], headline: Sequence[str]) -> str | None:
    """Why asked figures are none, in a line each; None where all are. MLflow keeps a NaN as 0."""
    asked = {*headline, *ASKED}
    said = [
        f"{m.name}: {m.reason or m.value}"
        for m in measurements
        if not math.isfinite(m.value) and (m.name in asked or m.name.endswith("/failed"))
    ]
    return "\n".join(said) or None


def of_every_system(table: Table) -> dict[str, float]:
    """Of the whole comparison: figure by figure, every system's mean over seeds, under `headline/<figure>/<system>`."""
    return dict(list(_of_every_system(table))[:MOST])


def _of_every_system(table: Table) -> Iterator[tuple[str, float]]:
    units = of_table(table)
    names = (
        *table.headline,
        SPLICED,
        NATIVE,
        *((units.metric,) if units else ()),
        COST,
        "usage/dead",
        "cost/training_flops",
    )
    for name in dict.fromkeys(names):
        for row in table.rows:
            if name in row.metrics:
                short = short_name(name, names).replace(" ", "_")
                yield metric_key(f"headline/{short}/{row.system}"), rounded(row.metrics[name].value)


def curve_keys(curves: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
    """Which columns of each curve are sent, by its name (`""`: the subject's own; else the site of a dictionary): as
    many as every curve can have without all together being more than a page holds."""
    each = max(1, OF_CURVES // max(1, len(curves)))
    shown = sorted(curves)[:OF_CURVES]
    return {name: (OF_DICTIONARY if name else OF_SUBJECT)[:each] for name in shown}


OF_SUBJECT = ("loss", "l0", "units_used", "unevenness", "objective", "lr", "gradient_norm", "tokens_per_second")
OF_DICTIONARY = ("explained_variance", "dead_share", "l0", "loss", "tokens_per_second")
