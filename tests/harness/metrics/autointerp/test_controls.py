from collections.abc import Callable

import numpy as np
import pytest

from harness.metrics.autointerp import controls
from harness.metrics.autointerp.collect import WantedContexts
from harness.metrics.autointerp.contexts import Explanation, UnitContexts
from harness.metrics.autointerp.firings import Firings
from harness.metrics.autointerp.mining import RuleExplainer
from harness.metrics.autointerp.sampling import Drawn
from harness.metrics.autointerp.scoring import ExecutionScorer, statistics

Planted = Callable[[str], UnitContexts]


def drawn(world, unit: UnitContexts, name: str, site: str = "mlp_out.0") -> Drawn:
    tokens = np.flatnonzero(world.fires(name))
    n = world.ids.size
    strengths = np.linspace(1, 2, len(tokens)).astype(np.float32)
    firings = Firings(site, 1, n, np.array([3]), np.array([0, len(tokens)]), tokens, strengths)
    return Drawn(unit, firings, 0, 0, 1.0, 1.0)


@pytest.mark.parametrize("n", [2, 3, 10])
def test_every_unit_gets_the_explanation_of_another_and_each_is_used_once(n: int) -> None:
    own = [Explanation(str(i), "rule") for i in range(n)]
    swapped = controls.of_another(own, np.random.default_rng(0))
    assert all(a != b for a, b in zip(own, swapped, strict=True))
    assert sorted(e.text for e in swapped) == sorted(e.text for e in own)


def test_the_explanation_of_another_unit_scores_clearly_lower(planted: Planted) -> None:
    units = [planted(name) for name in ("the", "money", "closing")]
    own = RuleExplainer().explain_all(units)
    swapped = controls.of_another(own, np.random.default_rng(0))
    scorer = ExecutionScorer()
    for right, wrong, unit in zip(own, swapped, units, strict=True):
        assert statistics(scorer.score(right, unit))["balanced_accuracy"] == 1
        assert statistics(scorer.score(wrong, unit))["balanced_accuracy"] <= 0.55


def test_shuffled_activations_keep_their_number_and_lose_their_meaning(
    world, planted: Planted, wanted: WantedContexts
) -> None:
    unit = planted("the")
    (moved,) = controls.shuffled([drawn(world, unit, "the")], world.text(), wanted, seed=0)
    assert moved is not None
    assert moved.density == pytest.approx(unit.density)
    found = statistics(ExecutionScorer().score(RuleExplainer().explain(moved), moved))
    assert found["balanced_accuracy"] < 0.7
