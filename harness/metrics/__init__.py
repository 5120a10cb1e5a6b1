"""The registry of metrics: a metric is one module with VERSION, Options and measure().

Add one by writing `harness/metrics/<name>.py` and a line here; other packages register a module under the entry-point
group `harness.metrics` (`harness/base/plugins.py`).
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from harness.base import plugins
from harness.base.errors import BadInput

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
    return {**METRICS, **plugins.named("harness.metrics", METRICS)}


def module_of(name: str) -> ModuleType:
    """The module of a metric. Raises BadInput, which names the metric, where it cannot be imported or lacks a part."""
    place = names()[name]
    try:
        module = import_module(place)
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise BadInput(f"metric {name!r} cannot be used: importing {place} gives {reason}") from error
    absent = [part for part in ("VERSION", "Options", "measure") if not hasattr(module, part)]
    if absent:
        raise BadInput(f"metric {name!r} cannot be used: {place} has no {', no '.join(absent)}")
    return module
