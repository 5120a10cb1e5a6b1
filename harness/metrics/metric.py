"""What a metric is, and the names of all of them: one file or folder each, which calls `register`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from harness.base.settings import Strict
from harness.systems.evaluation import Evaluation
from harness.tables.measurement import Measurement
from kernels.registry import Registry


@dataclass(frozen=True)
class Metric:
    """`measure` takes a system on the evaluation split and this metric's options and gives its figures; those that the
    system cannot have are `not_applicable`, with the reason. `version` goes up when a figure changes its meaning.
    labels: it reads which concepts hold on each token, so these are made for it."""

    measure: Callable[[Evaluation, Any], list[Measurement]]
    options: type[Strict]
    version: int
    labels: bool = False


METRICS: Registry[Metric] = Registry("metric", "harness.metrics", "harness.metrics")


def register(
    name: str,
    measure: Callable[[Evaluation, Any], list[Measurement]],
    options: type[Strict],
    version: int,
    labels: bool = False,
) -> None:
    """Add a metric under `name`. ValueError: `name` is taken."""
    METRICS.register(name, Metric(measure, options, version, labels))
