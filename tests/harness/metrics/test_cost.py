"""What a system costs: which figures there are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import pytest

from harness.metrics.cost import Options, measure
from harness.systems.cost import Cost

COST = Cost(
    parameters=100,
    active_parameters=60,
    forward_flops_per_token=200.0,
    training_flops=6e5,
    training_tokens=1000,
    training_seconds=2.0,
    training_cpu_seconds=3.0,
    peak_memory_bytes=3 << 20,
)


@dataclass
class Costs:
    cost: Cost


def figures(cost: Cost) -> dict[str, float]:
    return {m.name: m.value for m in measure(cast(Any, Costs(cost)), Options())}


def test_speed_is_tokens_by_seconds_and_bytes_are_shown_in_mebibytes() -> None:
    found = figures(COST)
    assert found["cost/tokens_per_second"] == 500
    assert found["cost/peak_memory"] == 3
    assert found["cost/training_cpu_seconds"] == 3


@pytest.mark.parametrize(
    ("changed", "without"),
    [({"peak_memory_bytes": None}, "cost/peak_memory"), ({"training_seconds": 0.0}, "cost/tokens_per_second")],
)
def test_what_could_not_be_told_has_no_figure(changed: dict[str, Any], without: str) -> None:
    found = figures(replace(COST, **changed))
    assert found.keys() == figures(COST).keys() - {without}
