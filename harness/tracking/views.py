"""Named chart views in MLflow's "Views" menu.

MLflow has no API for them (mlflow#9604). Its interface reads them from experiment tags `mlflow.sharedViewState.<id>`:
read from the interface's own code in 3.17.2, so they are written only to versions where the same was seen. Elsewhere
report.html, an artifact of the parent run, shows the main chart. A view chosen from the menu opens as a
table: that it shows charts is said only by its address, so addresses are what is given away (`links`).
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.tables import counts
from harness.tables.splice import COST, NATIVE, SPLICED
from harness.tracking import chosen

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

INVOCATIONS = "headline"  # the one view that is a table
COMPARISON = "comparison"  # the tag `kind` of a parent run
PREFIX = "mlflow.sharedViewState."
_SEEN = ("3.15.", "3.16.", "3.17.")
_COST = tuple(name for name in chosen.ASKED if name.startswith("cost/"))
_COLUMNS = (NATIVE, SPLICED, COST, *counts.NAMES, "usage/dead", *_COST)
_LONGEST = 20_000  # characters of an experiment's tag

_LETTER, _WIDER = 6, 20  # pixels, so that a column's name is not cut

Charts = list[dict[str, Any]]


class Shown:
    """What the rows of an invocation have: final figures by how many rows, and curves.

    asked: the headline, as MLflow spells it.
    """

    def __init__(self, keys: Mapping[str, int], asked: Sequence[str] = ()) -> None:
        self.asked = asked
        self.finals = {key: rows for key, rows in keys.items() if not key.startswith("train/")}
        self.curves = sorted(key for key in keys if key.startswith("train/"))

    def bars(self, names: Sequence[str]) -> Charts:
        """One for each figure that at least two rows have: a single bar compares nothing."""
        return [_bar(name) for name in dict.fromkeys(names) if self.finals.get(name, 0) > 1]

    def scatter(self, x: str, y: str) -> Charts:
        return [_scatter(x, y)] if min(self.finals.get(x, 0), self.finals.get(y, 0)) > 1 else []

    def lines(self, column: str, *, of_dictionaries: bool) -> Charts:
        """One chart of a column over the subjects' curves, or over those of all sites of dictionaries."""
        depth = 2 if of_dictionaries else 1
        keys = [key for key in self.curves if key.endswith(f"/{column}") and key.count("/") == depth]
        return [_line(keys)] if keys else []


def _against_units(shown: Shown) -> Charts:
    return [
        *shown.scatter(chosen.LOG_UNITS, SPLICED),
        *shown.bars([SPLICED, COST, *counts.NAMES, NATIVE, *shown.asked]),
    ]


def _use(shown: Shown) -> Charts:
    return [
        *shown.lines("dead_share", of_dictionaries=True),
        *shown.lines("units_used", of_dictionaries=False),
        *shown.lines("unevenness", of_dictionaries=False),
        *shown.bars(["usage/dead", "usage/unevenness"]),
    ]


def _subjects(shown: Shown) -> Charts:
    return [c for column in chosen.OF_SUBJECT for c in shown.lines(column, of_dictionaries=False)]


def _dictionaries(shown: Shown) -> Charts:
    return [c for column in chosen.OF_DICTIONARY for c in shown.lines(column, of_dictionaries=True)]


def _cost(shown: Shown) -> Charts:
    return [*shown.scatter(_COST[0], SPLICED), *shown.bars(_COST)]


def _interpretability(shown: Shown) -> Charts:
    return shown.bars([name for name in (*shown.asked, *chosen.INTERPRETABILITY) if name in chosen.INTERPRETABILITY])


VIEWS: Mapping[str, Callable[[Shown], Charts]] = {
    "loss against L0": _against_units,
    "dead and used units": _use,
    "subject curves": _subjects,
    "dictionary curves": _dictionaries,
    "cost": _cost,
    "interpretability": _interpretability,
}


def view_id(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def runs_link(base: str, experiment_id: str) -> str:
    """`workflowType` leaves the menu of language-model traces that MLflow opens by default."""
    return f"{base}/#/experiments/{experiment_id}/runs?workflowType=machine_learning"


def link(base: str, experiment_id: str, name: str) -> str:
    """base: of the server; "" gives an address inside the interface, whatever serves it."""
    mode = "" if name == INVOCATIONS else "compareRunsMode=CHART&"
    query = f"{mode}viewStateShareKey={view_id(name)}&workflowType=machine_learning"
    return f"{base}{'/' if base else ''}#/experiments/{experiment_id}/runs?{query}"


def links(base: str, experiment_id: str, names: Sequence[str]) -> dict[str, str]:
    return {name: link(base, experiment_id, name) for name in names}


def written(tags: Mapping[str, str]) -> list[str]:
    """The names of the views that an experiment has, of its tags."""
    return [name for name in (INVOCATIONS, *VIEWS) if f"{PREFIX}{view_id(name)}" in tags]


def write(client: MlflowClient, experiment_id: str, parent: str, asked: Sequence[str] = ()) -> None:
    """Writes the views of an invocation's rows; rewriting one keeps its id, so links stay valid. A view that nothing
    is known for is not written, or left as it was."""
    import mlflow

    if not mlflow.__version__.startswith(_SEEN):
        log.debug("mlflow %s: chart views not written, the format was not seen there", mlflow.__version__)
        return
    rows = client.search_runs([experiment_id], f"tags.`mlflow.parentRunId` = '{parent}'")
    keys = Counter(key for row in rows for key in row.data.metrics)
    shown, now = Shown(keys, asked), int(time.time() * 1000)
    states = {name: state(name, shown, parent) for name in VIEWS}
    states[INVOCATIONS] = table_state(list(client.get_run(parent).data.metrics))
    for name, found in states.items():
        if not found:
            continue
        client.set_experiment_tag(experiment_id, f"{PREFIX}{view_id(name)}", fitting(name, found, now))


def fitting(name: str, found: Mapping[str, Any], now: int) -> str:
    """The text of the tag; where it would be too long, without the charts that were only taken away."""
    whole = _envelope(name, found, now)
    return whole if len(whole) <= _LONGEST else _envelope(name, {**found, "compareRunCharts": _visible(found)}, now)


def _envelope(name: str, found: Mapping[str, Any], now: int) -> str:
    return json.dumps({"name": name, "createdAt": now, "updatedAt": now, "state": json.dumps(found)})


def _visible(found: Mapping[str, Any]) -> Charts:
    return [chart for chart in found.get("compareRunCharts", ()) if not chart["deleted"]]


def state(name: str, shown: Shown, parent: str) -> dict[str, Any]:
    """The state of the runs page: charts, columns and order; {} where there is no chart.

    Rows are not grouped: a group has no colour of its own, a run has its system's. Parents are left out: a filter is
    the only way, and this one leaves out older invocations too.
    """
    charts = VIEWS[name](shown)
    if not charts:
        return {}
    section = {"uuid": view_id(f"section {name}"), "name": name, "display": True, "columns": 2, "cardHeight": 420}
    section |= {"isReordered": True, "deleted": False, "isGenerated": False}
    drawn = {chart.get("metricKey") for chart in charts}
    # The interface adds a chart of its own for every metric that has none: one that was taken away counts.
    charts += [
        {**_bar(key), "deleted": True, "isGenerated": True}
        for key in (*shown.finals, *shown.curves)
        if key not in drawn
    ]
    for number, chart in enumerate(charts):
        chart["uuid"] = f"{view_id(name)[:8]}-{number}"
        chart["metricSectionId"] = section["uuid"]
    columns = [*(f"params.`{p}`" for p in ("system", "seed"))]
    columns += [f"metrics.`{m}`" for m in dict.fromkeys((*shown.asked, *_COLUMNS)) if m in shown.finals]
    return {
        **_page(columns),
        "compareRunCharts": charts,
        "compareRunSections": [section],
        "searchFilter": f"tags.`mlflow.parentRunId` = '{parent}'",
        "orderByKey": f"metrics.`{SPLICED if SPLICED in shown.finals else NATIVE}`",
        "orderByAsc": True,
    }


def table_state(metrics: Sequence[str]) -> dict[str, Any]:
    """A line an invocation, folded, the newest first, with the headline of every system in columns; {} before there
    is one."""
    columns = [f"metrics.`{key}`" for key in metrics if key.startswith("headline/")]
    newest_first = {"searchFilter": "", "orderByKey": "attributes.start_time", "orderByAsc": False}
    return {**_page(columns), **newest_first} if columns else {}


def _page(columns: Sequence[str]) -> dict[str, Any]:
    """What all views of the runs page say alike."""
    return {
        "selectedColumns": list(columns),
        "columnOrder": list(columns),
        "columnWidths": {column: _WIDER + _LETTER * len(column) for column in columns},
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "runsVisibilityMap": {},
        "runsHiddenMode": "SHOW_ALL",
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": True,
        "useGroupedValuesInCharts": False,
        "hideEmptyCharts": True,
        "groupBy": None,
        "groupsExpanded": {},
        "autoRefreshEnabled": False,
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
    }


_DRAWN = {"runsCountToCompare": 100, "deleted": False, "isGenerated": False}


def _scatter(x: str, y: str) -> dict[str, Any]:
    return {"type": "SCATTER", "xaxis": {"key": x, "type": "METRIC"}, "yaxis": {"key": y, "type": "METRIC"}, **_DRAWN}


def _bar(metric: str) -> dict[str, Any]:
    return {"type": "BAR", "metricKey": metric, **_DRAWN}


def _line(keys: Sequence[str]) -> dict[str, Any]:
    return {
        "type": "LINE",
        "metricKey": keys[0],
        "selectedMetricKeys": list(keys),
        "lineSmoothness": 0,
        "xAxisScaleType": "linear",
        "scaleType": "linear",
        "range": {},
        "xAxisKey": "step",
        "selectedXAxisMetricKey": "",
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "ignoreOutliers": False,
        "useGlobalXaxisKey": True,
        "useGlobalLineSmoothing": True,
        **_DRAWN,
    }
