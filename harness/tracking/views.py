"""Named chart views in MLflow's "Views" menu.

MLflow has no API for them (mlflow#9604). Its interface reads them from experiment tags `mlflow.sharedViewState.<id>`:
read from the interface's own code in 3.17.2, so they are written only to versions where the same was seen. Elsewhere
figures/overview.html, an artifact of the parent run, shows the main chart.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

_SEEN = ("3.15.", "3.16.", "3.17.")
_L0, _DEAD = "sparsity/strength_l0_total", "usage/dead"
_LOSS, _NATIVE = "loss/spliced_bits_per_byte", "loss/bits_per_byte"
_COST = (
    "cost/training_flops",
    "cost/parameters",
    "cost/tokens_per_second",
    "cost/training_seconds",
    "cost/peak_memory",
)

NAMES = ("loss against strength-L0", "dead share", "cost", "training curves")


def view_id(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def link(base: str, experiment_id: str, name: str) -> str:
    """`workflowType` leaves the menu of language-model traces that MLflow opens by default."""
    query = f"compareRunsMode=CHART&viewStateShareKey={view_id(name)}&workflowType=machine_learning"
    return f"{base}/#/experiments/{experiment_id}/runs?{query}"


def write(client: MlflowClient, experiment_id: str, metrics: set[str]) -> None:
    """Writes the views; rewriting one keeps its id, so links stay valid.

    `metrics`: every key there is, those of curves (`train/...`) included.
    """
    import mlflow

    if not mlflow.__version__.startswith(_SEEN):
        log.debug("mlflow %s: chart views not written, the format was not seen there", mlflow.__version__)
        return
    now = int(time.time() * 1000)
    for name in NAMES:
        envelope = {"name": name, "createdAt": now, "updatedAt": now, "state": json.dumps(state(name, metrics))}
        client.set_experiment_tag(experiment_id, f"mlflow.sharedViewState.{view_id(name)}", json.dumps(envelope))


def state(name: str, metrics: set[str]) -> dict[str, Any]:
    """The state of the runs page: charts, columns and order, seeds grouped by system."""
    dead = sorted(m for m in metrics if m.startswith(_DEAD))
    charts = {
        NAMES[0]: [_scatter(_L0, _LOSS), _bar(_LOSS), _bar(_NATIVE), _bar(_L0)],
        NAMES[1]: [*(_bar(m) for m in dead), *_lines("dead_share", metrics)],
        NAMES[2]: [*(_scatter(m, _LOSS) for m in _COST[:1]), *(_bar(m) for m in _COST)],
        NAMES[3]: [chart for c in ("loss", "lr", "tokens_per_second", "l0") for chart in _lines(c, metrics)],
    }[name]
    section = {"uuid": view_id(f"section {name}"), "name": name, "display": True}
    section |= {"isReordered": True, "deleted": False, "isGenerated": False}
    for number, chart in enumerate(charts):
        chart |= {
            "uuid": view_id(f"{name} {number}"),
            "metricSectionId": section["uuid"],
            "runsCountToCompare": 100,
            "deleted": False,
            "isGenerated": False,
        }
    shown = (_NATIVE, _LOSS, _L0, *dead, *_COST)
    columns = [f"params.`{p}`" for p in ("system", "seed")] + [f"metrics.`{m}`" for m in shown]
    return {
        "selectedColumns": [c for c in columns if c.startswith("params") or c[9:-1] in metrics],
        "columnOrder": [],
        "columnWidths": {},
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "runsVisibilityMap": {},
        "runsHiddenMode": "SHOW_ALL",
        "compareRunCharts": charts,
        "compareRunSections": [section],
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": True,
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "groupBy": {"aggregateFunction": "average", "groupByKeys": [{"mode": "param", "groupByData": "system"}]},
        "groupsExpanded": {},
        "autoRefreshEnabled": False,
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
        "orderByKey": f"metrics.`{_NATIVE}`",
        "orderByAsc": True,
    }


def _scatter(x: str, y: str) -> dict[str, Any]:
    return {"type": "SCATTER", "xaxis": {"key": x, "type": "METRIC"}, "yaxis": {"key": y, "type": "METRIC"}}


def _bar(metric: str) -> dict[str, Any]:
    return {"type": "BAR", "metricKey": metric}


def _lines(curve: str, metrics: set[str]) -> list[dict[str, Any]]:
    """One chart of a curve over all sites that have it; none if none has."""
    keys = sorted(m for m in metrics if m.startswith("train/") and m.endswith(f"/{curve}"))
    if not keys:
        return []
    chart = {
        "type": "LINE",
        "metricKey": keys[0],
        "selectedMetricKeys": keys,
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
    }
    return [chart]
