"""Runs a plan: row by row what its stages give; then the table, the figures and the tracking of it."""

from __future__ import annotations

import glob
import logging
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers.utils.logging import disable_progress_bar

from harness.base.errors import BadInput, HarnessError
from harness.base.files import check_writable, digest, write_atomically
from harness.metrics.metric import METRICS
from harness.metrics.units import markdown, reports
from harness.report import curves, figures
from harness.report.page import render
from harness.report.style import marks
from harness.run import notes
from harness.run.plan import Plan, PlannedRow, make_plan
from harness.run.stages import metric, units
from harness.run.stages.subject import SubjectStages
from harness.run.workshop import Workshop
from harness.store.stages import Stage, Store
from harness.systems.evaluation import Evaluation
from harness.tables import folder as results_folder
from harness.tables import provenance
from harness.tables.build import SeedResult
from harness.tables.build import build as build_table
from harness.tables.measurement import Measurement
from harness.tables.scaling import with_dense_equivalent
from harness.tables.splice import with_splice_cost
from harness.tables.table import RowProvenance, Table
from harness.tracking.parameters import settings
from harness.tracking.runs import Invocation, TrackedRow, tracker
from harness.training import teachers
from harness.training.dictionary_record import DictionaryRecord
from harness.training.record import CURVE_FILE
from kernels.registry import nearest

log = logging.getLogger(__name__)


def run(plan: Plan, store: Store, out: Path) -> Table:
    """Leaves results in `out` and returns the table. Raises HarnessError, also Interrupted: the same call goes on."""
    disable_progress_bar()  # transformers' own bars: ours say more
    # Set even to what it was: until then MKL shares out its products as it likes, and who sets it first
    # (dictionaries that learn side by side) changes the last digits of all that the process trains afterwards.
    torch.set_num_threads(plan.numerics.threads)
    if (gpu := torch.device(plan.numerics.device)).index is not None:
        torch.cuda.set_device(gpu)  # Triton starts kernels on the current device, wherever tensors are
    check_writable(out)
    experiment = plan.experiment
    if not plan.decided:
        with store.in_use([plan.text.stage]):
            trials = Workshop(plan, store)
            plan = make_plan(experiment, plan.numerics, trials.trial)
    with store.in_use(plan.stages()):
        workshop = Workshop(plan, store)
        corpus = workshop.corpus
        for row in plan.rows:
            if isinstance(row.trained.teacher, Path):
                teachers.check_tokenizer(row.trained.teacher, corpus.tokenizer(), row.spec.name)
        with tracker(experiment, store.root).invocation(
            corpus.info, config_hash(plan), rows=_settings(plan), matched=plan.matching.statement
        ) as invocation:
            results = [_reference(name, workshop, invocation) for name in plan.references]
            results += [_row(row, workshop, invocation, out) for row in plan.rows]
            source = provenance.collect(
                config_hash(plan), corpus.info.content_hash, plan.numerics.dtype, plan.numerics.device
            )
            table = build_table(
                experiment.name,
                with_dense_equivalent(with_splice_cost(results), experiment.scaling),
                source.model_copy(update={"matched": plan.matching.statement}),
                experiment.baseline,
                experiment.headline,
                experiment.compared_with,
                experiment.description,
            )
            for name in experiment.headline:
                if name not in table.metric_names() and "headline" in experiment.model_fields_set:
                    log.warning("headline: no row has %r; %s", name, nearest(name, table.metric_names()))
            _write(table, plan, store, out)
            invocation.finish(table, out, {system: mark.colour for system, mark in marks(table).items()})
    return table


def check_replaces_nothing(plan: Plan, out: Path) -> None:
    """Raises BadInput when `out` holds a table that was made with other settings."""
    if (out / "table.json").is_file() and results_folder.read(out).provenance.config_hash != config_hash(plan):
        raise BadInput(f"{out} holds results made with other settings: --replace writes over them, --out names another")


def config_hash(plan: Plan) -> str:
    """Of the experiment: every setting that its figures come from, and nothing else."""
    settings = plan.experiment.model_dump(mode="json")
    del settings["evaluation"]["unit_reports"]
    return digest(settings)[:16]


def _reference(name: str, workshop: Workshop, invocation: Invocation) -> SeedResult:
    plan = workshop.plan
    kept = RowProvenance(stages={"corpus": plan.text.stage.key, "reference": plan.references[name].key})
    result = SeedResult(name, "reference", plan.experiment.seeds[0], workshop.reference(name), kept)
    with invocation.row(name, result.seed, "reference") as tracked:
        tracked.finish(result)
    return result


def _row(row: PlannedRow, workshop: Workshop, invocation: Invocation, out: Path) -> SeedResult:
    spec, plan = row.spec, workshop.plan
    kind = "dictionary" if spec.dictionary else "subject"
    sites = [str(site) for site in spec.dictionary.sites] if spec.dictionary else [""]
    record: DictionaryRecord | None = None
    with invocation.row(spec.name, row.seed, kind, sites) as tracked:
        if row.dictionary is None:
            # While it trains, the curve is followed where it is written, then where it is kept.
            tracked.curve(workshop.subject(row.trained, follow=tracked.curve) / CURVE_FILE)
        else:
            for site in sites:
                tracked.curve(_while_it_trains(row.dictionary, site, workshop.store), prefix=site)
            folder = workshop.dictionaries(row)
            record = DictionaryRecord.load(folder)
            for site in record.curves():
                tracked.curve(folder / site / CURVE_FILE, prefix=site)
        measurements, kernels = _measure(
            row, workshop, tracked, results_folder.details_folder(out, spec.name, row.seed)
        )
        result = SeedResult(
            spec.name,
            kind,
            row.seed,
            measurements + (record.measurements() if record else []) + notes.searched(plan.choices, spec),
            RowProvenance(kernels=kernels, stages=_keys(row, plan)),
            notes=[
                *plan.matching.notes(spec.name),
                *notes.how_trained(spec.subject, workshop.subject(row.trained)),
                *notes.how_chosen(plan.choices, spec),
                *notes.how_much_text(plan.experiment.evaluation, workshop.corpus),
                *(spec.dictionary.config.notes() if spec.dictionary else []),
                *(record.notes() if record else []),
            ],
            accounting=plan.matching.accounting(spec.name),
            unmatched=plan.matching.unmatched(spec.name),
            elsewhere=None if spec.subject.pretrained is None else spec.subject.pretrained.kind,
        )
        tracked.finish(with_splice_cost([result])[0])
    return result


def _settings(plan: Plan) -> dict[tuple[str, int], dict[str, Any]]:
    """Of every row, what its stages are stored with."""
    return {
        (row.spec.name, row.seed): settings(row.subject.config, row.dictionary.config if row.dictionary else None)
        for row in plan.rows
    }


def _while_it_trains(stage: Stage, site: str, store: Store) -> Callable[[], Path | None]:
    """Where the curve of a dictionary grows: in the work folder of one of those that are trained in the same pass."""
    pattern = f"dictionary-*/checkpoint/*/{glob.escape(f'{stage.key}@{site}')}/{CURVE_FILE}"
    return lambda: next((store.root / "work").glob(pattern), None)


def _measure(
    row: PlannedRow, workshop: Workshop, tracked: TrackedRow, details: Path
) -> tuple[list[Measurement], dict[str, str]]:
    """The row's figures, and every kernel that ran for them or for what they were measured on. What metrics write for
    people goes into `details`."""
    opened: list[Evaluation] = []

    def evaluation() -> Evaluation:
        if not opened:
            opened.append(workshop.evaluation(row))
        return opened[0]

    kernels = workshop.kernels(row)
    found: list[Measurement] = []
    for name, stage in row.metrics.items():
        if workshop.store.finished(stage) is None:  # here, so that a fault in these is not taken for the metric's
            evaluation()
            workshop.codes(row, evaluation)
        try:
            folder = workshop.metric(row, name, evaluation)
            measured, ran = metric.read(folder)
            if twice := {one.name for one in found} & {one.name for one in measured}:
                raise ValueError(f"another metric gives {min(twice)!r} already")
        except HarnessError:
            raise
        except Exception as error:  # a metric's own fault costs its own figures, and is asked again next time
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            log.error("%s failed: %s", stage.label, reason, exc_info=log.isEnabledFor(logging.DEBUG))
            found.append(Measurement(f"{name}/failed", math.nan, "", "none", METRICS[name].version, reason=reason))
            continue
        tracked.details(folder, name)
        _copy_readable(folder, details / name)
        found += measured
        kernels |= ran
    _report_units(row, workshop, evaluation, details)
    return found, kernels


def _report_units(row: PlannedRow, workshop: Workshop, evaluation: Callable[[], Evaluation], details: Path) -> None:
    """Reports of the row's units, into `details` too. They are no figures: where they fail, the row stands."""
    if row.units is None:
        return
    store = workshop.store
    failed = [name for name in units.READS if name in row.metrics and store.finished(row.metrics[name]) is None]
    if failed:  # made now they would stay as they are, also when the metric works again
        log.warning("no %s: %s failed", row.units.label, failed[0])
        return
    if store.finished(row.units) is None:
        evaluation()
        workshop.codes(row, evaluation)
    try:
        folder = workshop.units(row, evaluation)
    except HarnessError:
        raise
    except Exception as error:
        log.error("%s failed: %s", row.units.label, error, exc_info=log.isEnabledFor(logging.DEBUG))
        return
    write_atomically(details / reports.FILE, (folder / reports.FILE).read_bytes())


def _keys(row: PlannedRow, plan: Plan) -> dict[str, str]:
    """Stage → key, of all that the row's figures come from."""
    stages = {"corpus": row.text.stage, "subject": row.subject, "codes": row.codes, **row.metrics}
    if row.dictionary is not None:
        stages["dictionary"] = row.dictionary
    stages |= {trial.stage.label: trial.stage for trial in plan.trials if trial.spec.name in _parts(row)}
    if isinstance(row.trained.teacher, SubjectStages):
        stages["teacher"] = row.trained.teacher.stage
    if row.trained.origin is not None:
        stages["upcycled from"] = row.trained.origin.stage
    return {name: stage.key for name, stage in stages.items()}


def _parts(row: PlannedRow) -> tuple[str, str]:
    """The names under which trials of the row were made: its subject's, and its own."""
    return row.spec.subject.name, row.spec.name


def _write(table: Table, plan: Plan, store: Store, out: Path) -> None:
    text = yaml.safe_dump(plan.experiment.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    write_atomically(out / "experiment.yaml", text.encode())
    learnt = curves.collect({source: path for row in plan.rows for source, path in _curves(row, store)})
    curves.write(learnt, out)
    drawn = figures.drawings(table, learnt)
    figures.write(drawn, out / "figures")
    render.write(table, drawn, out)
    made = [store.finished(row.units) for row in plan.rows if row.units is not None]
    markdown.write([units.read(folder) for folder in made if folder is not None], out)
    results_folder.write(table, out)


def _curves(row: PlannedRow, store: Store) -> Iterator[tuple[curves.Source, Path]]:
    name, seed = row.spec.name, row.seed
    if row.dictionary is None:
        yield (name, seed, ""), store.root / row.subject.folder / CURVE_FILE
    else:
        folder = store.root / row.dictionary.folder
        yield from (((name, seed, site), folder / site / CURVE_FILE) for site in DictionaryRecord.load(folder).curves())


# Pairs and units for eyes, as stages of metrics hold them: report.html and units.md have the same with more around it.
_TOLD_ELSEWHERE = ("pairs.md", "pairs.html", "units.html")


def _copy_readable(stage: Path, details: Path) -> None:
    """What a metric left for people, from its stage into the results folder."""
    for file in sorted(path for path in stage.iterdir() if path.suffix in (".md", ".html", ".parquet")):
        if file.name not in _TOLD_ELSEWHERE:
            details.mkdir(parents=True, exist_ok=True)
            write_atomically(details / file.name, file.read_bytes())
