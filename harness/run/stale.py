"""Which results folders are older than the tree, from what they hold: nothing is run.

A folder is stale where its experiment.yaml cannot be read any more or says something else than the experiment of the
folder's name in harness/experiment, and where it holds figures of a metric version that is no longer the tree's. (Code
that changed without either is found by running: `harness verify RESULTS`.)
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.base.errors import BadInput
from harness.base.settings import validated
from harness.experiment.schema import Experiment, experiment_names, load
from harness.metrics.metric import METRICS
from harness.run import notes
from harness.run.again import EXPERIMENT
from harness.tables import folder, scaling, splice
from harness.tables.table import Table
from harness.training import dictionary_record

_SHOWN = 4  # settings that differ and are named
_NO_MEANING = ("description", "tracking")  # what figures and verdicts do not come from
# Families that no metric gives, and figures that are computed when the table is made.
_FAMILIES = {"dictionary": dictionary_record.VERSION, "search": notes.VERSION, "scaling": scaling.VERSION}
_FIGURES = {splice.COST: splice.VERSION, **{f"{name}_compute": scaling.VERSION for name in scaling.PARTS}}


def folders(results: Path) -> list[Path]:
    """Itself, or the results folders in it. Raises BadInput where there are none."""
    if (results / EXPERIMENT).is_file():
        return [results]
    found = sorted(path.parent for path in results.glob(f"*/{EXPERIMENT}"))
    if not found:
        raise BadInput(f"{results} holds no results folder: no {EXPERIMENT} in it or one below")
    return found


def reasons(results: Path) -> list[str]:
    """Why a folder is stale, one line each; empty where it is of this tree."""
    try:
        return [*_settings(results), *_versions(folder.read(results))]
    except BadInput as error:
        return [f"this tree cannot read it: {str(error).partition('; (allowed')[0]}"]


def _settings(results: Path) -> Iterator[str]:
    try:
        theirs = _meaning(load(str(results / EXPERIMENT)))
    except BadInput as error:
        why = str(error).partition("; (allowed")[0]
        yield f"this tree cannot read its {EXPERIMENT}: {why}"
        return
    name = results.resolve().name
    if name in experiment_names():
        pairs = _differences(theirs, _meaning(load(name)))
        differing = [f"{key} {was} → {now}" for key, was, now in pairs]
        if differing:
            more = f" and {len(differing) - _SHOWN} more" if len(differing) > _SHOWN else ""
            yield f"other settings than harness/experiment/{name}.yaml: {', '.join(differing[:_SHOWN])}{more}"


def _meaning(experiment: Experiment) -> dict[str, Any]:
    settings = experiment.model_dump(mode="json", exclude=set(_NO_MEANING))
    del settings["evaluation"]["unit_reports"]  # they are no figures
    for name, options in settings["metrics"].items():
        try:
            known = METRICS.named(name).options
        except ValueError as error:
            raise BadInput(str(error)) from None
        # A default that is written out changes nothing.
        settings["metrics"][name] = validated(known, options, where=f"metrics.{name}").model_dump(mode="json")
    return settings


def _differences(was: Any, now: Any, at: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(was, dict) and isinstance(now, dict):
        for key in {**was, **now}:
            yield from _differences(was.get(key, "—"), now.get(key, "—"), f"{at}.{key}" if at else key)
    elif was != now:
        yield at, _short(was), _short(now)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 24 else f"{text[:23]}…"


def _versions(table: Table) -> Iterator[str]:
    found: dict[str, str] = {}
    for row in table.rows:
        for name, figure in row.metrics.items():
            family, current = name.split("/")[0], version_of(name)
            if current is None:
                found[family] = f"{family} {figure.version} (no such metric any more)"
            elif figure.version != current:
                found[family] = f"{family} {figure.version} → {current}"
    if found:
        yield f"figures of other metric versions: {', '.join(found.values())}"


def version_of(figure: str) -> int | None:
    """The version that this tree gives a figure of that name; None where nothing gives one."""
    family = figure.split("/")[0]
    if figure in _FIGURES:
        return _FIGURES[figure]
    if family in _FAMILIES:
        return _FAMILIES[family]
    # A metric's figures beside its own: kept_controls, autointerp_quantiles.
    of = max((name for name in METRICS if family == name or family.startswith(f"{name}_")), key=len, default=None)
    return None if of is None else METRICS[of].version
