"""The stage `units`: reports of a sample of a system's units. They give no figure, so no table depends on them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from harness.base.progress import stage_progress
from harness.metrics.units.reports import FILE, UnitReports
from harness.run.numerics import Numerics
from harness.store.stages import Stage

if TYPE_CHECKING:
    from harness.experiment.schema import EvaluationConfig
    from harness.systems.evaluation import Evaluation

READS = ("autointerp", "joint")  # metrics whose findings on single units and pairs are told again
STRONGEST = 32  # where autointerp is not asked for: its default


def stage(
    name: str,
    seed: int,
    evaluation: EvaluationConfig,
    strongest: int,
    numerics: Numerics,
    encoded: Stage,
    measured: Mapping[str, Stage],
) -> Stage:
    """Keyed by how many units of a site are described, where they count as firing, how much is read, numerics, whose
    they are, and the system with its codes and with what its metrics of `READS` found."""
    read = {metric: measured[metric].key for metric in READS if metric in measured}
    return Stage(
        kind="units",
        label=f"units of {name}, seed {seed}",
        config={
            "a_site": evaluation.unit_reports,
            "strongest": strongest,
            "sequences": evaluation.codes_sequences,
            "batch_sequences": evaluation.batch_sequences,
            "system": name,
            "seed": seed,
            "reads": list(read),
            **numerics.as_config(),
        },
        upstream=(*encoded.upstream, encoded.key, *read.values()),
        modules=(__name__,),
    )


def produce(evaluation: Evaluation, stage: Stage, found: Mapping[str, Path], work: Path) -> None:
    """found: metric → the folder of its stage, of those of `READS` that the row has."""
    from harness.metrics.units.describe import Wanted, describe  # whoever only plans need not wait for it
    from harness.metrics.units.left import Left

    asked = stage.config
    left = Left.read(found.get("autointerp"), found.get("joint"))
    with stage_progress(stage.label) as report:
        made = describe(evaluation, Wanted(asked["a_site"], asked["strongest"]), left, asked["seed"], report)
    made.save(work / FILE)


def read(folder: Path) -> UnitReports:
    return UnitReports.load(folder / FILE)
