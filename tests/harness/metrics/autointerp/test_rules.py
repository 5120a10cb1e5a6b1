import pytest

from harness.metrics.autointerp.contexts import Context
from harness.metrics.autointerp.rules import Atom, Rule, classes_of


def window(*tokens: str) -> Context:
    return Context(0, tokens, (0.0,) * len(tokens), len(tokens) - 1)


def fires(rule: Rule, *tokens: str) -> list[float]:
    return rule.predict(window(*tokens))


def test_a_rule_reads_as_a_sentence_and_runs() -> None:
    rule = Rule(((Atom("class", ("a number",)), Atom("is", ("$", "€"), 1)), (Atom("ends", ("ing",)),)))
    assert str(rule) == (
        'The unit fires where the token is a number and the token before it is one of "$", "€", '
        'or where the token ends with "ing".'
    )
    assert fires(rule, "$", "12", " 12", " going", "€", "7") == [0, 1, 0, 1, 0, 1]


def test_conditions_on_the_left_do_not_hold_where_nothing_stands_on_the_left() -> None:
    before = Rule(((Atom("class", ("a number",), 1),),))
    assert fires(before, "1", "a", "b") == [0, 1, 0]
    second = Rule(((Atom("is", ("1",), 2),),))
    assert fires(second, "1", "a", "b") == [0, 0, 1]
    assert fires(second, "1") == [0]


def test_earlier_means_any_of_the_eight_tokens_before_and_not_the_token_itself() -> None:
    rule = Rule(((Atom("is", ("(",), -1),),))
    assert fires(rule, "(", *"abcdefghij") == [0, *[1] * 8, 0, 0]


def test_negations_say_what_they_do() -> None:
    rule = Rule(((Atom("is", (" the",)), Atom("class", ("capitalised",), 1, negated=True)),))
    assert fires(rule, "A", " the", "a", " the") == [0, 0, 0, 1]
    assert str(rule) == 'The unit fires where the token is " the" and the token before it is not capitalised.'
    none = Atom("is", ("(",), -1, negated=True)
    assert str(none) == 'none of the 8 tokens before it is "("'
    assert str(Atom("begins", ("un",), 0, negated=True)) == 'the token does not begin with "un"'


def test_the_empty_rule_never_fires_and_says_so() -> None:
    assert fires(Rule(), "a", "b") == [0, 0]
    assert str(Rule()).startswith("No short rule")


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        (" 12", {"a number"}),
        (" Cat", {"the start of a word", "capitalised"}),
        ("ing", {"letters with no space before them"}),
        (").", {"punctuation", "a closing bracket"}),
        ("\n  ", {"white space", "a line break"}),
        ("é", {"a letter alone", "letters with no space before them", "outside ASCII"}),
        ("", set()),
    ],
)
def test_character_classes(token: str, expected: set[str]) -> None:
    assert classes_of(token) == expected


def test_more_to_remember_costs_more() -> None:
    costs = [
        Atom("class", ("a number",)).cost,
        Atom("class", ("a number",), 1).cost,
        Atom("is", ("a", "b")).cost,
        Rule(((Atom("is", ("a", "b")), Atom("is", ("c",), 1)),)).cost,
    ]
    assert costs == sorted(costs)
    assert len(set(costs)) == len(costs)
