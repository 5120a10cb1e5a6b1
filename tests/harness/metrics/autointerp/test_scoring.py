import math
from collections.abc import Callable

import numpy as np
import pytest

from harness.metrics.autointerp import controls, scoring
from harness.metrics.autointerp.contexts import NEAR_MISS, RANDOM, SAME_TOKEN, Explanation, Scored, UnitContexts

Planted = Callable[[str], UnitContexts]


def flags(text: str) -> np.ndarray:
    return np.array([c == "1" for c in text])


def test_hand_computed_figures() -> None:
    labels, predictions = flags("1110 0000".replace(" ", "")), flags("11010000")
    # 2 of 3 positives and 4 of 5 negatives right
    assert scoring.balanced_accuracy(labels, predictions) == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert scoring.f1(labels, predictions) == pytest.approx(4 / 6)
    # of 6 pairs: 0.9 above all three, 0.4 above one, ties half
    assert scoring.auroc(flags("11000"), np.array([0.9, 0.4, 0.4, 0.1, 0.5])) == pytest.approx((3 + 1.5) / 6)
    assert scoring.pearson(np.array([0.0, 1, 2]), np.array([1.0, 1, 4])) == pytest.approx(math.sqrt(3) / 2)


@pytest.mark.parametrize("answer", [0.0, 1.0])
def test_a_constant_answer_scores_one_half(answer: float) -> None:
    for positives in (1, 5, 9):
        scored = Scored("detection", (1,) * positives + (0,) * (10 - positives), (answer,) * 10, 0)
        assert scoring.statistics(scored)["balanced_accuracy"] == 0.5
    assert scoring.auroc(flags("110"), np.full(3, answer)) == 0.5
    assert scoring.pearson(np.array([0.0, 1.0]), np.full(2, answer)) == 0


def test_the_constant_control_scores_one_half_on_a_unit(planted: Planted) -> None:
    found = scoring.statistics(scoring.ExecutionScorer().score(controls.constant(), planted("money")))
    assert found["balanced_accuracy"] == found["balanced_accuracy_near"] == 0.5


def test_figures_by_group() -> None:
    scored = Scored("rule", (1, 1, 1, 1, 0, 0, 0), (1, 1, 1, 0, 0, 1, 1), 0, (0, 0, 1, 1, RANDOM, NEAR_MISS, NEAR_MISS))
    found = scoring.statistics(scored)
    assert found["recall_q0"] == 1
    assert found["recall_q1"] == 0.5
    assert found["balanced_accuracy"] == pytest.approx((3 / 4 + 1 / 3) / 2)
    assert found["balanced_accuracy_near"] == pytest.approx((3 / 4 + 0) / 2)
    assert "auroc" not in found
    graded = scoring.statistics(Scored("detection", (1, 0), (0.9, 0.6), 0))
    assert graded["auroc"] == 1
    assert graded["balanced_accuracy"] == 0.5
    assert "balanced_accuracy_near" not in graded


def test_a_simulation_is_scored_pooled_and_by_quantile() -> None:
    truth, said = (0.0, 1.0, 0.0, 2.0, 0.0, 0.0), (0.0, 3.0, 5.0, 5.0, 0.0, 0.0)
    found = scoring.statistics(Scored("simulation", truth, said, 0, (0, 0, 1, 1, RANDOM, RANDOM)))
    assert found["pearson_q0"] == pytest.approx(1)
    assert found["pearson_q1"] == 0
    assert found["pearson"] == pytest.approx(np.corrcoef(truth, said)[0, 1])


def test_what_cannot_be_said_is_nan_and_not_zero() -> None:
    assert math.isnan(scoring.statistics(Scored("detection", (), (), 40))["balanced_accuracy"])
    assert math.isnan(scoring.statistics(Scored("rule", (1, 1), (1, 1), 0))["balanced_accuracy"])


def test_an_explanation_that_cannot_be_run_is_refused(planted: Planted) -> None:
    with pytest.raises(ValueError, match="cannot be executed"):
        scoring.ExecutionScorer().score(Explanation("fires on cats", "llm"), planted("the"))


def test_windows_on_the_same_token_are_the_negatives_of_one_figure_and_of_no_other() -> None:
    groups = (0, 0, RANDOM, RANDOM, SAME_TOKEN, SAME_TOKEN)
    scored = Scored("rule", (1, 1, 0, 0, 0, 0), (1, 1, 0, 0, 1, 0), 0, groups)
    found = scoring.statistics(scored)
    assert found["balanced_accuracy"] == 1
    assert found["balanced_accuracy_same_token"] == 0.75
    without = Scored("rule", scored.labels[:4], scored.predictions[:4], 0, groups[:4])
    assert found == {**scoring.statistics(without), "balanced_accuracy_same_token": 0.75}
