"""A results folder made by hand: a table, curves, and reports of units whose text tries to be markup."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from harness.report import curves, figures
from harness.report.curves import Curve
from harness.report.page import render
from harness.tables import folder
from harness.tables.build import SeedResult, build
from harness.tables.measurement import Measurement
from harness.tables.table import RowProvenance, Table

from ...tables.test_table import provenance

HOSTILE = "</script><script>window.hacked = true</script><img src=x onerror='window.hacked = true'>"


def table(question: str = "Who loses least?", **losses: float) -> Table:
    found = losses or {"dense": 2.2, "dense+topk": 2.3, "peer": 2.1}
    generator = np.random.default_rng(0)
    results = []
    for place, (system, loss) in enumerate(found.items()):
        for seed in (0, 1, 2):
            noise = generator.normal(0, 0.01, 400)
            noise -= noise.mean()
            values = {
                "loss/bits_per_byte": loss, "loss/spliced_bits_per_byte": loss + 0.01 * seed,
                "sparsity/strength_l0_total": 300.0 / (place + 1), "sparsity/l0": 90.0 / (place + 1),
                "usage/dead": 0.1 * place, "usage/rare": 0.2, "usage/always_on": 0.0, "cost/active_parameters": 1e5,
            }  # fmt: skip
            measured = [Measurement(name, v, "", "lower", 1, v + noise, "documents") for name, v in values.items()]
            kind = "dictionary" if "+" in system else "subject"
            accounting = "equal total" if "+" in system else None
            results.append(SeedResult(system, kind, seed, measured, RowProvenance(), accounting=accounting))
    return build("planted", results, provenance(), "dense", ("loss/spliced_bits_per_byte",), {}, question)


def unit(site: str, number: int, hostile: bool = False) -> dict[str, Any]:
    context = {"p": [0, 1, 2], "s": [0, 99, 0], "at": 1, "d": 7}
    partner = {
        "site": site, "unit": number + 1, "lift": 3.0, "neither": 70, "a": 10, "b": 12, "both": 8,
        "examples": {"a": context, "b": None, "both": context},
        "excess": 0.5, "floor": 0.125, "text": "so it", "token": " is",
        "next": {"neither": [], "a": [[0, 0.5]], "b": [], "both": [[2, 0.75], [1, 0.25]]},
    }  # fmt: skip
    return {
        "site": site, "unit": number, "fired": number + 1, "density": (number + 1) / 10_000, "mean_strength": 1.0,
        "max_strength": 2.0, "why": ["sample"], "explanation": None,
        "histogram": {"low": 0.1, "high": 2.0, "counts": [0, 3, 1, 0]},
        "promoted": [3 if hostile else 1], "suppressed": [2], "domains": [["code", 0.75, 0.5]], "partners": [partner],
        "top": [context], "quantiles": [context], "near_misses": [{**context, "s": [0, 0, 0]}],
    }  # fmt: skip


def reports(system: str, n_units: int) -> dict[str, Any]:
    units = [unit(f"mlp.{i % 2}", i // 2, hostile=i == 0) for i in range(n_units)]
    sites = [
        {"site": f"mlp.{layer}", "n_units": n_units, "live": n_units // 2, "described": n_units // 2}
        for layer in (0, 1)
    ]
    return {
        "schema": 1, "system": system, "seed": 0, "tokens": 10_000, "documents": 9, "strongest": 32, "sites": sites,
        "pieces": ["the", " dog", "\n", HOSTILE], "units": units,
    }  # fmt: skip


def results(where: Path, n_units: int = 6, question: str = "Who loses least?") -> Path:
    """A whole folder with its page; `peer` has reports of units, two of them explained."""
    made = table(question)
    learnt = [Curve(system="dense", seed=0, site="", tokens=[1, 2], points={"loss": [4.0, 3.0]})]
    curves.write(learnt, where)
    folder.write(made, where)
    details = folder.details_folder(where, "peer", 0)
    (details / "autointerp").mkdir(parents=True)
    (details / "units.json").write_text(json.dumps(reports("peer", n_units)), encoding="utf-8")
    _explain(details / "autointerp" / "units.parquet")
    render.write(made, figures.drawings(made, learnt), where)
    return where / render.FILE


def _explain(path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    rows = [
        {
            "site": "mlp.0", "unit": number, "explanation": text, "by": "rule", "rule_balanced_accuracy": score,
            "rule_f1": 0.5, "constant_rule": 0.5, "random_dictionary_rule": 0.7, "promoted": ["x"],
        }
        for number, text, score in ((0, f"fires on {HOSTILE}", 0.71), (1, "fires on dog", 0.95))
    ]  # fmt: skip
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), path)
