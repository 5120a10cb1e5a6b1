"""A row of an experiment that was run, opened for a person who wants to look at one prompt or one unit."""

from __future__ import annotations

from dataclasses import dataclass

import transformers

from harness.base.errors import BadInput
from harness.experiment.schema import load
from harness.run.numerics import Numerics
from harness.run.plan import PlannedRow, make_plan
from harness.run.search import made_trials
from harness.run.workshop import Workshop
from harness.store.stages import Store
from harness.systems.evaluation import Evaluation
from harness.systems.system import Site, System
from kernels.registry import nearest


@dataclass(frozen=True)
class Opened:
    """A row with its codes on the evaluation split."""

    row: PlannedRow
    evaluation: Evaluation

    @property
    def system(self) -> System:
        return self.evaluation.system


def open_row(experiment: str, system: str, seed: int, numerics: Numerics, store: Store) -> Opened:
    """Trains nothing: BadInput where the row is not stored, or is none of the experiment's."""
    plan = make_plan(load(experiment, None), numerics, made_trials(store))
    rows = {row.spec.name: row for row in plan.rows if row.seed == seed}
    if not rows:
        raise BadInput(f"seed {seed}: {experiment} has seeds {', '.join(map(str, plan.experiment.seeds))}")
    if system not in rows:
        raise BadInput(f"system {system!r}: {nearest(system, list(rows))}")
    row = rows[system]
    missing = [
        stage for stage in (row.text.stage, row.subject, row.dictionary) if stage and store.finished(stage) is None
    ]
    if missing:
        where = f"{numerics.device}, {numerics.threads} threads"
        raise BadInput(f"{missing[0].label} is not stored ({where}); `harness run {experiment}` makes it")
    transformers.utils.logging.disable_progress_bar()  # a line a prompt does not wait for
    workshop = Workshop(plan, store)
    evaluation = workshop.evaluation(row)
    workshop.codes(row, lambda: evaluation)
    return Opened(row, evaluation)


def parse_unit(system: System, text: str) -> tuple[Site, int]:
    """`1:345` (layer and unit), or `mlp_out.1:345` as pages and tables write sites."""
    where, _, number = text.partition(":")
    sites = {str(site): site for site in system.sites} | {str(site.layer): site for site in system.sites}
    if not number.isdigit():
        raise BadInput(f"unit {text!r}: layer and number, such as 0:17")
    if where not in sites:
        raise BadInput(f"unit {text!r}: {nearest(where, [str(site.layer) for site in system.sites])}")
    site, unit = sites[where], int(number)
    n_units = system.decomposition[site].n_units
    if unit >= n_units:
        raise BadInput(f"unit {text!r}: {site} has units 0 to {n_units - 1}")
    return site, unit
