"""`harness log RESULTS`: sends a finished results folder to MLflow, later, as the run itself would have."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from harness.base.errors import HarnessError
from harness.tables.build import SeedResult
from harness.tables.folder import details_folder, read
from harness.tables.measurement import Measurement
from harness.tables.table import Row, Table
from harness.tracking.parameters import of_table
from harness.tracking.runs import Tracker, table_digest


@dataclass(frozen=True)
class _CorpusOfTable:
    content_hash: str


def log_results(folder: Path, store: Path, colours: Callable[[Table], Mapping[str, str]] = lambda _: {}) -> str:
    """Sends a finished results folder, with what the store still has of its rows; one line on what was done.

    Nothing is sent twice: a table that MLflow has is left, rows of an invocation that lost its server are continued.
    colours: of a table's systems in figures. Raises BadInput where `folder` holds no table, HarnessError where MLflow
    cannot be reached.
    """
    table = read(folder)
    settings = folder / "experiment.yaml"
    config = yaml.safe_load(settings.read_text()) if settings.is_file() else {}
    tracker = Tracker(table.comparison, {"headline": table.headline, **config}, store)
    query = f"tags.`harness.table` = '{table_digest(table)}' and attributes.status = 'FINISHED'"
    if tracker.attempt(lambda client: client.search_runs([tracker.experiment_id], query)):
        return f"{folder} is in {tracker.uri} already; nothing was sent"
    made = table.provenance
    with tracker.invocation(
        _CorpusOfTable(made.corpus_hash),
        made.config_hash,
        rows=of_table(table, store),
        matched=made.matched,
        made_by=(made.commit, made.dirty),
    ) as invocation:
        for row in table.rows:
            for seed in row.seeds:
                curves = _stored_curves(row, seed, store)
                with invocation.row(row.system, seed, row.kind, list(curves)) as run:
                    for name, curve in curves.items():
                        run.curve(curve, name)
                    for metric, details in _details(row, seed, folder, store):
                        run.details(details, metric)
                    run.finish(_seed_result(row, seed))
        invocation.finish(table, folder, colours(table))
    if tracker.client is None:
        raise HarnessError(f"{folder} was not sent to {tracker.uri}; nothing is lost: try again when it answers")
    return f"{folder} was sent to {tracker.uri}"


def _seed_result(row: Row, seed: int) -> SeedResult:
    at = row.seeds.index(seed)
    found = [
        Measurement(name, value, figure.unit, figure.direction, figure.version)
        for name, figure in row.metrics.items()
        if (value := figure.seeds[at]) is not None
    ]
    found += [Measurement(name, math.nan, "", "none", 1, reason=why) for name, why in row.not_applicable.items()]
    return SeedResult(
        row.system,
        row.kind,
        seed,
        found,
        row.provenance,
        notes=row.notes,
        accounting=row.accounting,
        unmatched=row.unmatched,
    )


def _stored_curves(row: Row, seed: int, store: Path) -> dict[str, Path]:
    """By site, in the order of the dictionaries; of a subject under ""."""
    stages = row.provenance.stages
    if key := stages.get(f"dictionary/{seed}"):
        return {path.parent.name: path for path in sorted((store / "dictionary" / key).glob("*/curve.jsonl"))}
    path = store / "subject" / stages.get(f"subject/{seed}", "-") / "curve.jsonl"
    return {"": path} if path.is_file() else {}


def _details(row: Row, seed: int, folder: Path, store: Path) -> Iterator[tuple[str, Path]]:
    """What metrics left for people: of the stage, which has all of it, or of the results folder."""
    kept = {path.name: path for path in sorted(details_folder(folder, row.system, seed).glob("*/"))}
    for stage, key in row.provenance.stages.items():
        name, _, of = stage.rpartition("/")
        if of == str(seed) and (stored := store / "metric" / key).is_dir():
            kept[name] = stored
    yield from sorted(kept.items())
