"""The table as Markdown and JSON."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from pathlib import Path

import torch

from kernels.bench.measure import Ceilings, TimedRow


def write(out: Path, ceilings: Ceilings, sections: dict[str, list[TimedRow]], remarks: list[str]) -> None:
    """`table.md` and `table.json` in the folder `out`."""
    out.mkdir(parents=True, exist_ok=True)
    document = {
        "machine": asdict(ceilings) | {"torch": torch.__version__, "python": platform.python_version()},
        "remarks": remarks,
        "sections": {name: [asdict(row) | {"ratios": row.ratios()} for row in rows] for name, rows in sections.items()},
    }
    (out / "table.json").write_text(json.dumps(document, indent=1) + "\n")
    (out / "table.md").write_text(markdown(ceilings, sections, remarks))


def markdown(ceilings: Ceilings, sections: dict[str, list[TimedRow]], remarks: list[str]) -> str:
    lines = [
        "# Kernels: speed",
        "",
        f"{ceilings.device}, {ceilings.threads} threads, torch {torch.__version__}. Measured ceilings: copy "
        f"{ceilings.copy:.1f} GB/s (read + written), float32 product {ceilings.multiply:.0f} GFLOP/s.",
        "Medians of interleaved runs in one process; in brackets the quartiles of ours. "
        "`n×` means the other takes n times as long. Made by `python -m kernels.bench`.",
        "",
    ]
    for name, rows in sections.items():
        lines += [
            f"## {name}",
            "",
            "| what | ours, ms | against | share of ceiling | error | note |",
            "|---|---|---|---|---|---|",
        ]
        lines += [_line(row) for row in rows]
        lines.append("")
    return "\n".join([*lines, *(f"- {remark}" for remark in remarks), ""])


def _line(row: TimedRow) -> str:
    ratios = []
    for rival, ratio in row.ratios().items():
        target = row.targets.get(rival)
        verdict = "" if target is None else f" (aim {target:g}×: {'met' if ratio >= target else 'not met'})"
        ratios.append(f"{rival} {row.against[rival]:.1f} ms = {ratio:.2f}×{verdict}")
    share = "" if row.share is None else f"{row.share:.0%} of {row.ceiling}"
    error = "" if row.error is None else f"{row.error:.1e}"
    ours = f"{row.ours:.2f} [{row.spread[0]:.2f}, {row.spread[1]:.2f}]"
    return f"| {row.name} | {ours} | {'<br>'.join(ratios)} | {share} | {error} | {row.note} |"
