"""The registry of metrics: a metric is one module with VERSION, Options, applies() and measure().

Add one by writing `harness/metrics/<name>.py` and a line here; other packages register a module under the entry-point
group `harness.metrics`. Built-in names cannot be overridden.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from types import ModuleType

METRICS = {
    "loss": "harness.metrics.loss",
    "reconstruction": "harness.metrics.reconstruction",
    "sparsity": "harness.metrics.sparsity",
    "usage": "harness.metrics.usage",
    "cost": "harness.metrics.cost",
    "joint": "harness.metrics.joint",
    "autointerp": "harness.metrics.autointerp",
    "tasks": "harness.metrics.tasks",
}


def names() -> dict[str, str]:
    """Metric name → module, ours and those that installed packages register."""
    found = {point.name: point.value for point in entry_points(group="harness.metrics")}
    return {**found, **METRICS}


def module_of(name: str) -> ModuleType:
    return import_module(names()[name])
