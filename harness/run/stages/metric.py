"""The stage `metric`: what one metric finds in one system."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.base.progress import stage_progress
from harness.base.settings import Strict
from harness.metrics.metric import METRICS
from harness.run.numerics import Numerics
from harness.run.stages import codes
from harness.store.stages import Stage
from harness.systems.evaluation import Evaluation
from harness.tables.measurement import Measurement, load_measurements, save_measurements
from kernels import dispatch

if TYPE_CHECKING:
    from harness.experiment.schema import EvaluationConfig


def stage(
    metric: str,
    options: Strict,
    name: str,
    evaluation: EvaluationConfig,
    numerics: Numerics,
    upstream: tuple[str, ...],
) -> Stage:
    """Keyed by the metric, its version and options, how much is read, numerics, and the system with its codes."""
    config: dict[str, Any] = {
        "metric": metric,
        "version": METRICS[metric].version,
        "options": options.model_dump(mode="json"),
        "sequences": evaluation.sequences,
        "batch_sequences": evaluation.batch_sequences,
        "resamples": evaluation.resamples,
        **numerics.as_config(),
    }
    modules = (__name__, METRICS.modules()[metric], *options.modules())
    return Stage("metric", f"{metric} of {name}", config, upstream, modules)


def produce(metric: str, options: Strict, evaluation: Evaluation, encoded: Path, label: str, work: Path) -> None:
    """Leaves the figures, and what the metric writes for people. `encoded`: the folder of the system's codes."""
    evaluation.artifacts = work
    with dispatch.recording() as ran, stage_progress(label):
        measured = METRICS[metric].measure(evaluation, options)
    save_measurements(work, measured, {**codes.read_kernels(encoded), **ran})


def read(folder: Path) -> tuple[list[Measurement], dict[str, str]]:
    """The figures, and op → implementation that ran for them."""
    return load_measurements(folder)
