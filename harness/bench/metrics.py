"""What metrics cost at sizes a person would want: time and peak memory, on made-up codes and text.

joint, counts and null: units fire by Zipf's law, about 32 on a token; every pair that fires together is counted, those
that met `least` times or more are kept, and each of them is held against the null and tested. joint, edits: edits.py.
"""

from __future__ import annotations

import json
import logging
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from harness.base import files
from harness.bench import concepts_cost, edits
from harness.bench.concepts_cost import ConceptCost, ConceptLoad
from harness.metrics.joint import null
from harness.metrics.joint.counts import meetings
from harness.metrics.joint.firing import Firing
from harness.training.memory import peak_memory, reset_peak_memory

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MetricLoad:
    """How many tokens, units, units on a token (mean), and meetings below which a pair is pruned."""

    tokens: int = 1_000_000
    units: int = 65_536
    active: int = 32
    least: int = 10
    seed: int = 0


@dataclass(frozen=True)
class Step:
    name: str
    seconds: float


@dataclass(frozen=True)
class MetricReport:
    """seconds and peak_bytes: of counting and testing, the memory that of the process, the codes themselves and the
    libraries included. found: pairs beyond the null, of which there are next to none."""

    size: MetricLoad
    machine: str
    threads: int
    steps: list[Step]
    seconds: float
    peak_bytes: int
    meetings: int
    distinct: int
    kept: int
    found: int
    concept_size: ConceptLoad
    concepts: ConceptCost
    edit_size: edits.EditSize
    edits: list[edits.EditTime]


def measure(
    out: Path,
    size: MetricLoad | None = None,
    edit_size: edits.EditSize | None = None,
    concept_size: ConceptLoad | None = None,
) -> MetricReport:
    """Times the steps and writes table.md and table.json to `out`. HarnessError when `out` cannot be written."""
    files.check_writable(out)
    size, edit_size, concept_size = size or MetricLoad(), edit_size or edits.EditSize(), concept_size or ConceptLoad()
    _steps(MetricLoad(tokens=2000, units=500, active=8))  # compiles
    firing = planted(size)
    reset_peak_memory()
    steps, found, (total, distinct, kept) = _steps(size, firing)
    machine = f"{platform.machine()}, {platform.system()}"
    seconds = sum(step.seconds for step in steps)
    threads = torch.get_num_threads()
    peak = peak_memory()
    del firing
    told = _concepts(size, concept_size)
    edited = edits.measure(edit_size)
    report = MetricReport(
        size,
        machine,
        threads,
        steps,
        seconds,
        peak,
        total,
        distinct,
        kept,
        found,
        concept_size,
        told,
        edit_size,
        edited,
    )
    files.write_atomically(out / "table.md", ("\n".join(_markdown(report)) + "\n").encode())
    files.write_atomically(out / "table.json", (json.dumps(asdict(report), indent=1) + "\n").encode())
    return report


def planted(size: MetricLoad) -> Firing:
    """Codes without structure: Zipf's law over units, a Poisson number of them on a token."""
    rng = np.random.default_rng(size.seed)
    weights = 1 / np.arange(1, size.units + 1)
    ends = np.cumsum(weights / weights.sum())
    indptr, units = [np.zeros(1, np.int64)], []
    for start in range(0, size.tokens, 50_000):
        n = min(50_000, size.tokens - start)
        # Half as many again: common units are drawn twice, and a token has a unit once.
        drawn = np.searchsorted(ends, rng.random((n, size.active * 3 // 2))).astype(np.int32)
        drawn = np.minimum(drawn, size.units - 1)
        drawn.sort(axis=1)
        fresh = np.ones(drawn.shape, bool)
        fresh[:, 1:] = drawn[:, 1:] != drawn[:, :-1]
        # As many of the distinct ones as the token is to have, whichever.
        place = np.where(fresh, rng.random(drawn.shape, np.float32), np.float32(2)).argsort(axis=1).argsort(axis=1)
        fresh &= place < rng.poisson(size.active, n)[:, None]
        units.append(drawn[fresh])
        indptr.append(indptr[-1][-1] + np.cumsum(fresh.sum(1)))
    fired = np.concatenate(units)
    document = np.arange(size.tokens) // 500
    return Firing(np.concatenate(indptr), fired, np.ones(len(fired), np.float32), document, size.units)


def _steps(size: MetricLoad, firing: Firing | None = None) -> tuple[list[Step], int, tuple[int, int, int]]:
    firing = firing or planted(size)
    steps: list[Step] = []
    clock = time.perf_counter()

    def done(name: str) -> None:
        nonlocal clock
        steps.append(Step(name, time.perf_counter() - clock))
        log.info("%s: %.1f s", name, steps[-1].seconds)
        clock = time.perf_counter()

    met = meetings(firing, size.least)
    done("counting who fires together")
    fitted = null.fit(firing)
    done("fitting the null")
    mean, variance = fitted.expected(met.i, met.j)
    done("expected meetings and their variance")
    p = null.p_values(met.n, mean, variance)
    alive = int((firing.rates > 0).sum())
    found = int(null.discoveries(p, alive * (alive - 1) // 2).sum())
    done("tests")
    return steps, found, (met.n_all, met.distinct, len(met.n))


def _concepts(size: MetricLoad, load: ConceptLoad) -> ConceptCost:
    """As many units as the codes have, half as many of them on a token."""

    def codes(tokens: int, seed: int) -> Firing:
        return planted(MetricLoad(tokens, size.units, max(1, size.active // 2), seed=seed))

    def labels(tokens: int, seed: int) -> Firing:
        return planted(MetricLoad(tokens, load.concepts, load.holding, seed=seed))

    concepts_cost.measure(load, codes(500, 1), codes(500, 2), labels(500, 3), labels(500, 4))  # compiles
    tokens = load.tokens
    return concepts_cost.measure(load, codes(tokens, 1), codes(tokens, 2), labels(tokens, 3), labels(tokens, 4))


def _markdown(report: MetricReport) -> Iterator[str]:
    size = report.size
    yield "# What metrics cost\n"
    yield (
        f"joint, counts and null: {size.tokens:,} tokens × {size.units:,} units, {size.active} on a token, Zipf; "
        f"{report.meetings:,} meetings of {report.distinct:,} pairs, {report.kept:,} of which met {size.least} times "
        f"or more and are tested, the others counted as tested and not found ({report.found:,} found; units are drawn "
        f"without putting back, which is nearly the null). {report.threads} threads, {report.machine}.\n"
    )
    yield "| step | seconds |"
    yield "|---|--:|"
    for step in report.steps:
        yield f"| {step.name} | {step.seconds:.1f} |"
    yield f"| all | {report.seconds:.1f} |"
    yield f"\nPeak memory of the process {report.peak_bytes / 2**30:.2f} GiB, codes and libraries included.\n"
    asked = report.concept_size
    yield (
        f"concepts, coverage: {asked.tokens:,} tokens to choose on and as many to score on × {size.units:,} units, "
        f"{size.active // 2} on a token, × {asked.concepts:,} concepts, {asked.holding} on a token, every threshold: "
        f"{report.concepts.seconds:.1f} s, peak memory {report.concepts.peak_bytes / 2**30:.2f} GiB.\n"
    )
    tried = report.edit_size
    yield (
        f"joint, edits: up to {tried.pairs} pairs in {tried.contexts} contexts each, with floors and controls; "
        f"{tried.n_layers} layers of width {tried.d_model}, {tried.sequences} sequences of {tried.length} tokens.\n"
    )
    yield "| system | pairs in the headline | seconds |"
    yield "|---|--:|--:|"
    for edit in report.edits:
        yield f"| {edit.subject} | {edit.pairs} | {edit.seconds:.1f} |"
