"""What is left of every unit: explanation, scores, contexts, promoted tokens. units.parquet, a page for people that is
made of it (page.py), and a file for MLflow's `log_table`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness.metrics.autointerp import page
from harness.metrics.autointerp.contexts import Context, Explanation
from harness.metrics.autointerp.sampling import Drawn

UNITS_FILE = "units.parquet"
PAGE_FILE = "units.html"
TABLE_FILE = "units.table.json"
SHOWN = 5  # contexts of a kind in the table; the parquet file has all


def rows(
    units: Sequence[Drawn], explanations: Sequence[Explanation], scores: Mapping[str, np.ndarray]
) -> list[dict[str, Any]]:
    """One a unit; `scores`: column → a figure for every unit, nan where there is none. In contexts the tokens that the
    unit fires on stand in «»."""
    found = []
    for index, (drawn, explanation) in enumerate(zip(units, explanations, strict=True)):
        unit = drawn.contexts
        found.append(
            {
                "site": unit.site,
                "unit": unit.unit,
                "density": unit.density,
                "stratum": drawn.stratum,
                "weight": drawn.weight,
                "firing_weight": drawn.firing_weight,
                "explanation": explanation.text,
                "by": explanation.by,
                **{name: _plain(values[index]) for name, values in scores.items()},
                "promoted": list(unit.promoted),
                "suppressed": list(unit.suppressed),
                "explain": [marked(context) for context in unit.explain],
                "score": [marked(context) for context in unit.score],
                "score_quantiles": list(unit.score_quantiles),
                "score_silent": [marked(context) for context in unit.score_silent],
                "near_misses": [marked(context) for context in unit.near_misses],
                "same_token": [marked(context) for context in unit.same_token],
                "explain_documents": sorted({c.document for c in (*unit.explain, *unit.explain_silent)}),
                "score_documents": sorted(
                    {c.document for c in (*unit.score, *unit.score_silent, *unit.near_misses, *unit.same_token)}
                ),
            }
        )  # fmt: skip
    return found


def marked(context: Context) -> str:
    return "".join(f"«{t}»" if a > 0 else t for t, a in zip(context.tokens, context.activations, strict=True))


def write(found: Sequence[Mapping[str, Any]], folder: Path, system: str) -> None:
    """Both files, and the page made of the first; a table without units has no columns and is not written."""
    import pyarrow as pa
    import pyarrow.parquet

    if not found:
        return
    pyarrow.parquet.write_table(pa.Table.from_pylist([dict(row) for row in found]), folder / UNITS_FILE)
    page.write(folder / UNITS_FILE, folder / PAGE_FILE, system)
    columns = for_log_table(found)
    (folder / TABLE_FILE).write_text(json.dumps(columns, ensure_ascii=False), encoding="utf-8")


def for_log_table(found: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Columns of plain values, as `mlflow.log_table` wants them: lists become lines, the first SHOWN of them."""
    left_out = ("weight", "firing_weight", "score_quantiles", "explain_documents", "score_documents")
    names = [name for name in found[0] if name not in left_out]
    return {name: [_flat(row[name]) for row in found] for name in names}


def _flat(value: Any) -> Any:
    return "\n".join(value[:SHOWN]) if isinstance(value, list) else value


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
