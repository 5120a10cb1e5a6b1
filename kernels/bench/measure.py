"""Timing, memory and ceilings of the machine, for the table."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

Work = Callable[[], object]


@dataclass(frozen=True)
class TimedRow:
    """One line of the table. Times in milliseconds, medians of interleaved runs."""

    name: str
    ours: float
    spread: tuple[float, float]  # lower and upper quartile of ours
    against: dict[str, float] = field(default_factory=dict)  # rival -> its time
    targets: dict[str, float] = field(default_factory=dict)  # rival -> the ratio aimed at
    ceiling: str = ""  # which ceiling limits it
    share: float | None = None  # of that ceiling
    error: float | None = None  # largest relative error against float64 over outputs and gradients
    note: str = ""

    def ratios(self) -> dict[str, float]:
        return {rival: time_ / self.ours for rival, time_ in self.against.items()}


@dataclass(frozen=True)
class Ceilings:
    """What this machine can do at best, measured in this process."""

    device: str
    threads: int
    copy: float  # GB/s, read + written
    multiply: float  # GFLOP/s of a float32 product


def ceilings(device: str, tokens: int, d: int, n: int, copied: int = 2**26) -> Ceilings:
    """Copy bandwidth (256 MB), and the float32 product of a dictionary's encoder, tokens × d × n."""
    source = torch.ones(copied, device=device)
    target = torch.empty_like(source)
    a, b = torch.randn(tokens, d, device=device), torch.randn(d, n, device=device)
    out = torch.empty(tokens, n, device=device)
    times = interleaved({"copy": lambda: target.copy_(source), "multiply": lambda: torch.mm(a, b, out=out)}, 9)
    # The best, not the median: a ceiling is what the machine does when nobody disturbs it.
    copy, multiply = (min(times[name]) / 1e3 for name in ("copy", "multiply"))
    name = torch.cuda.get_device_name() if device == "cuda" else _processor()
    flops = 2 * tokens * d * n
    return Ceilings(name, torch.get_num_threads(), 2 * 4 * copied / copy / 1e9, flops / multiply / 1e9)


def interleaved(works: dict[str, Work], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of every run: each round runs every work once, after one round that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds + 1):
        for name, work in works.items():
            _synchronize()
            start = time.perf_counter()
            work()
            _synchronize()
            if number:
                times[name].append((time.perf_counter() - start) * 1e3)
    return times


def row(
    name: str, works: dict[str, Work], rounds: int, targets: dict[str, float] | None = None, ceiling: str = "",
    least_ms: float | None = None, error: float | None = None, note: str = "",
) -> TimedRow:  # fmt: skip
    """Time works["ours"] against the others. least_ms: what the ceiling allows at best."""
    times = interleaved(works, rounds)
    medians = {rival: statistics.median(runs) for rival, runs in times.items()}
    ours = medians.pop("ours")
    quartiles = statistics.quantiles(times["ours"], n=4) if rounds > 1 else [ours, ours, ours]
    share = None if least_ms is None else least_ms / ours
    return TimedRow(name, ours, (quartiles[0], quartiles[2]), medians, targets or {}, ceiling, share, error, note)


def extra_memory(work: Work) -> float | None:
    """MB by which resident memory rose above its level before, at the peak of `work`; None where it cannot be seen.

    Linux only, and memory kept from earlier work is not counted: run what is to be compared in the order of size.
    """
    peak = Path("/proc/self/clear_refs")
    if not peak.exists() or torch.cuda.is_available():
        return None
    gc.collect()
    before = _status("VmRSS")
    peak.write_text("5")  # resets the peak
    work()
    return (_status("VmHWM") - before) / 1024


def relative_error(ours: list[torch.Tensor], truth: list[torch.Tensor]) -> float:
    return max(
        float((a.double() - b.double()).norm() / b.double().norm().clamp_min(1e-30))
        for a, b in zip(ours, truth, strict=True)
    )


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key + ":"))


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "cpu")


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
