"""What the two metrics write is what is read of them: their own writers make the files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from harness.metrics.autointerp import controls, output
from harness.metrics.joint.artifacts import PairReport, write_pairs
from harness.metrics.units.left import CONTROLS, EXPLAINED, Left


def test_explanations_come_with_their_first_scorer_and_its_best_control(tmp_path: Path) -> None:
    row = {
        "site": "mlp_out.0", "unit": 3, "density": 0.1, "stratum": 0, "weight": 1.0, "firing_weight": 1.0,
        "explanation": "fires on w3", "by": "rule",
        "rule_balanced_accuracy": 0.875, "rule_f1": 0.5, "simulation_pearson": 0.25,
        "constant_rule": 0.5, "another_unit_rule": None, "shuffled_rule": 0.625, "random_dictionary_rule": 0.75,
        "merged_2_rule": 0.8, "constant_simulation": 0.9, "another_unit_simulation": 0.9,
        "promoted": [], "suppressed": [], "explain": [], "score": [], "score_quantiles": [], "score_silent": [],
        "near_misses": [], "same_token": [], "explain_documents": [], "score_documents": [],
    }  # fmt: skip
    output.write([row, {**row, "unit": 1, "rule_balanced_accuracy": None}], tmp_path, "world")
    left = Left.read(tmp_path, None)
    assert list(left.explained) == [("mlp_out.0", 3), ("mlp_out.0", 1)]
    said = left.explained["mlp_out.0", 3]
    assert (said.text, said.by, said.scorer, said.score) == ("fires on w3", "rule", "rule", 0.875)
    assert (said.control, said.control_score) == ("random_dictionary", 0.75)
    assert left.explained["mlp_out.0", 1].score is None
    assert left.pairs == ()


def test_names_are_those_of_autointerp() -> None:
    assert CONTROLS == controls.OF_NOTHING
    assert EXPLAINED == output.UNITS_FILE


def test_pairs_come_with_the_first_of_their_contexts(make_world: Callable[..., Any], tmp_path: Path) -> None:
    top = np.arange(16).reshape(2, 4, 2) % 10
    probability = np.linspace(0.9, 0.1, 16).reshape(2, 4, 2)
    figures = {"excess": 0.5, "floor": 0.125, "p_value": 0.01, "conjunction": 1.0, "effect": 1.0, "novel": 0.0}
    report = PairReport(
        ("mlp_out.0", "mlp_out.1"), (2, 1), figures, np.array([3, 12]), np.array([0.5, 0.25]), top, probability
    )
    write_pairs(make_world().evaluation(), [report], tmp_path)
    (pair,) = Left.read(None, tmp_path).pairs
    assert (pair.a, pair.b, pair.excess, pair.floor) == (("mlp_out.0", 2), ("mlp_out.1", 1), 0.5, 0.125)
    assert pair.token == "w3"
    # joint has both, only A, only B, neither; the first state's tokens are 0 and 1, and so on.
    assert {state: [token for token, _ in said] for state, said in pair.next.items()} == {
        "both": ["<end>", "w1"],
        "a": ["w2", "w3"],
        "b": ["w4", "w5"],
        "neither": ["w6", "w7"],
    }
    turned = pair.seen_from(pair.b)
    assert (turned.a, turned.b, turned.next["a"]) == (pair.b, pair.a, pair.next["b"])


def test_metrics_that_were_not_asked_for_or_found_nothing_leave_nothing(tmp_path: Path) -> None:
    assert Left.read(None, None) == Left.read(tmp_path, tmp_path) == Left({}, ())
