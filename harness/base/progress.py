"""Progress of long stages: bars with rate and time left on a terminal, quiet log lines anywhere else."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text


class Report(Protocol):
    """How a stage says how far it is: units done, units in all, and what the units are."""

    def __call__(self, done: float, total: float, unit: str) -> None: ...


def silent(done: float, total: float, unit: str) -> None:
    """For stages that nobody watches."""


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.speed or task.finished_speed
        return Text(f"{speed:,.0f} {task.fields['unit']}/s" if speed else "")


@contextlib.contextmanager
def stage_progress(label: str) -> Iterator[Report]:
    """Shows one stage's progress while the block runs. Draws nothing when standard error is not a terminal."""
    if not sys.stderr.isatty():
        yield silent
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        _Rate(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(label, total=None, unit="")

        def report(done: float, total: float, unit: str) -> None:
            bars.update(task, completed=done, total=total, unit=unit)

        yield report
