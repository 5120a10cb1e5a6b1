from collections.abc import Callable

import pytest

from harness.metrics.autointerp.contexts import UnitContexts
from harness.metrics.autointerp.mining import RuleExplainer, mine
from harness.metrics.autointerp.scoring import ExecutedSimulation, ExecutionScorer, statistics

Planted = Callable[[str], UnitContexts]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("the", 'The unit fires where the token is " the".'),
        ("money", 'The unit fires where the token is a number and the token before it is "$".'),
        ("closing", "The unit fires where the token is a closing bracket."),
    ],
)
def test_a_planted_unit_gets_its_rule_and_full_scores(planted: Planted, name: str, sentence: str) -> None:
    unit = planted(name)
    explanation = RuleExplainer().explain(unit)
    assert explanation.text == sentence
    found = statistics(ExecutionScorer().score(explanation, unit))
    assert found["balanced_accuracy"] == 1
    assert found["f1"] == 1
    if unit.near_misses:
        assert found["balanced_accuracy_near"] == 1
    assert statistics(ExecutedSimulation().score(explanation, unit))["pearson"] > 0.9


def test_near_misses_are_what_tells_money_from_numbers_and_from_variables(planted: Planted) -> None:
    unit = planted("money")
    found = {context.tokens[context.trigger].strip() for context in unit.explain_silent[30:]}
    assert {"7", "x"} <= found <= {"42", "7", "x"}
    assert len(unit.near_misses) == 10


def test_a_concept_that_no_local_rule_sees_scores_near_chance(planted: Planted) -> None:
    unit = planted("hidden")
    found = statistics(ExecutionScorer().score(RuleExplainer().explain(unit), unit))
    assert 0.35 < found["balanced_accuracy"] < 0.65


def test_mining_is_deterministic_and_does_not_depend_on_the_order_of_windows(planted: Planted) -> None:
    unit = planted("money")
    rule = mine(unit.explain, unit.explain_silent)
    assert mine(unit.explain, unit.explain_silent) == rule
    assert mine(unit.explain[::-1], unit.explain_silent[::-1]) == rule


def test_a_unit_that_is_never_silent_in_its_windows_gets_no_rule_on_a_single_token(planted: Planted) -> None:
    unit = planted("the")
    rule = mine(unit.explain_silent[:5], unit.explain_silent)
    assert rule.clauses == ()
