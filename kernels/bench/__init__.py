"""Checks, times and tabulates the kernels on this machine: `python -m kernels.bench --out results/kernels`.

Needs only torch, numpy and what the implementations need (numba, triton). Compares with SAELens, dictionary-learning
and peer-pytorch where these are installed.
"""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from kernels import dispatch
from kernels.bench import dictionaries, experts, measure, report
from kernels.bench.rivals import Rivals

__all__ = ["run"]

log = logging.getLogger(__name__)


def run(
    out: Path, rivals: Path | None = None, rounds: int = 7, tiny: bool = False
) -> dict[str, list[measure.TimedRow]]:
    """Measure everything and write `table.md` and `table.json` into `out`. tiny: sizes for a test of this command."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    others = Rivals(rivals, look=not tiny)
    size = experts.ExpertSizes(64, 32, 64, 2, 4) if tiny else experts.ExpertSizes()
    dictionary = dictionaries.DictionarySizes(64, 16, 64, 4) if tiny else dictionaries.DictionarySizes()
    with dispatch.recording() as ran:
        shape = (dictionary.tokens, dictionary.d, dictionary.n)
        ceilings = measure.ceilings(device, *shape, 2**16 if tiny else 2**26)
        log.info("kernels: bench: %s", ceilings)
        sections = {
            "Rank-1 experts": experts.rank1(size, ceilings, rounds, device),
            "PEER layer": experts.peer_layer(size, others, rounds, device),
            "Dictionary step": dictionaries.steps(dictionary, ceilings, others, rounds, device),
            "Selection": dictionaries.selections(dictionary, rounds, device),
        }
        for name, rows in sections.items():
            log.info("kernels: bench: %s done (%d rows)", name, len(rows))
        remarks = []
        if not tiny:
            sections["Growth with the number of experts"], remark = experts.scaling(rounds, device)
            remarks.append(remark)
    remarks.append("Implementations that ran: " + ", ".join(f"{op} {which}" for op, which in sorted(ran.items())) + ".")
    if device == "cpu":
        remarks.append(
            "No GPU column: no GPU was at hand. The Triton kernels are tested against the reference in Triton's "
            "interpreter (float32, tiny shapes) and their speed is not known."
        )
    report.write(out, ceilings, sections, remarks)
    return sections
