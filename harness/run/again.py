"""The experiment of a results folder, run again: as it was made, and as the tree is now."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from harness.base.errors import BadInput
from harness.experiment.schema import Experiment, load
from harness.run import comparison
from harness.run.device import numerics_on
from harness.run.numerics import Numerics
from harness.run.plan import make_plan
from harness.run.search import made_trials
from harness.store.stages import Store
from harness.tables import folder, provenance
from harness.tables.table import Provenance, Table

EXPERIMENT = "experiment.yaml"


@dataclass(frozen=True)
class Again:
    """The table that the folder holds and the one that was made now; how many stages it needed, and had."""

    stored: Table
    made: Table
    stages: int
    were_there: int


def experiment_of(results: Path) -> Experiment:
    """Raises BadInput: there is none, or this tree cannot read it."""
    path = results / EXPERIMENT
    if not results.is_dir():
        folder.read(results)  # raises, and says which folders there are
    if not path.is_file():
        raise BadInput(f"{results} has no {EXPERIMENT}, so nothing says how to run it again")
    try:
        return load(str(path))
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from error


def run_again(results: Path, store: Store, device: str | None) -> Again:
    """Runs it into a folder that is thrown away, and says nothing to MLflow. What the store has is not computed again.

    device: other than that which the table was made on.
    """
    experiment = experiment_of(results)  # before the table: a bench's folder has one of another form
    stored = folder.read(results)
    plan = make_plan(
        experiment.model_copy(update={"tracking": "off"}), _as_made(stored.provenance, device), made_trials(store)
    )
    stages = plan.stages()
    there = sum(store.finished(stage) is not None for stage in stages)
    with tempfile.TemporaryDirectory(prefix="harness-verify-") as temporary:
        made = comparison.run(plan, store, Path(temporary))
    # The settings are those of the folder's file, whichever defaults the tree has since given names to.
    same = made.provenance.model_copy(update={"config_hash": stored.provenance.config_hash})
    return Again(stored, made.model_copy(update={"provenance": same}), len(stages), there)


def _as_made(made: Provenance, device: str | None) -> Numerics:
    """Device, format and threads of the table, as far as this machine has them."""
    wanted = device or made.device
    if device is None and wanted != "cpu" and not torch.cuda.is_available():
        wanted = "cpu"
    found = numerics_on(wanted, made.dtype if wanted != "cpu" else "float32")
    return Numerics(found.device, found.dtype, min(made.threads, provenance.hardware().cores))
