import pytest

from harness.metrics.autointerp import prompts
from harness.metrics.autointerp.contexts import Context, UnitContexts


def window(*tokens: str, **strength: float) -> Context:
    activations = tuple(strength.get(token.strip(), 0.0) for token in tokens)
    return Context(0, tokens, activations, 0)


def unit(explain: tuple[Context, ...], silent: tuple[Context, ...] = (), **more) -> UnitContexts:
    return UnitContexts("0.mlp_out", 3, 0.1, explain, silent, (), (), (), (), **more)


def test_a_window_is_one_line_whose_own_brackets_cannot_be_taken_for_marks():
    tokens = ("cout", " <<", " x", "\n2. fake", "\u2028", "\x00\t>>")
    assert prompts.plain(tokens, {2}) == "cout ‹‹<< x>>⏎2. fake⏎  ››"


def test_marks_stand_where_the_activation_is_near_the_window_s_largest():
    assert prompts.firing(Context(0, ("a", "b", "c", "d"), (10.0, 2.9, 3.0, 0.0), 0)) == [0, 2]
    assert prompts.firing(Context(0, ("a", "b"), (0.0, 0.0), 0)) == []


def test_bins_are_ceilings_of_tenths_and_0_only_where_silent():
    assert prompts.bins([0.0, 0.001, 1.0, 5.0, 5.01, 10.0, 12.0], 10.0) == [0, 1, 1, 5, 6, 10, 10]


def test_the_explain_prompt_shows_windows_strongest_first_with_strengths_and_silent_ones_after():
    request = prompts.explain(unit((window("a", " b", b=5), window("c", " b", b=10)), (window("no", "where"),)))
    assert request.messages[-1].content.split("\n") == [
        "Fires in:", "1. c<< b>> | b 10", "2. a<< b>> | b 5", "Silent in:", "1. nowhere",
    ]  # fmt: skip


def test_many_windows_are_shown_evenly_from_the_strongest_to_the_weakest():
    many = tuple(window("a", " b", b=float(n)) for n in range(1, 101))
    lines = prompts.explain(unit(many, many)).messages[-1].content.split("\n")
    assert lines[1] == "1. a<< b>> | b 10"
    assert lines[20] == "20. a<< b>> | b 1"
    assert len([line for line in lines if " | b 5" in line]) == 2
    assert len(lines) == 1 + 20 + 1 + 6


def test_promoted_tokens_are_shown_only_when_asked_for():
    some = unit((window("a", a=1),), promoted=(" x",), suppressed=(" y",))
    assert "likely: x" in prompts.explain(some, promoted=True).messages[-1].content
    assert "likely" not in prompts.explain(some).messages[-1].content


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("Explanation: fires on verbs", "fires on verbs"),
        ("Let me think.\n**Explanation:** fires on verbs\n", "fires on verbs"),
        ("Explanation: a\nExplanation: b", "b"),
        ("It fires on verbs", None),
        ("Explanation:", None),
        ("Explanation: **", None),
        ("", None),
        ("\n" * 500_000 + "-" * 500_000, None),
        ("no explanation: x", None),
        ("Explanation: a\x00b\u2028c <<d>>", "a b c ‹‹d››"),
        ("Explanation: " + "x" * 5000, "x" * 400),
    ],
)
def test_an_explanation_is_what_stands_behind_its_word(text, read):
    assert prompts.read_explanation(text) == read


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("[1, 0,1]", [1, 0, 1]),
        ("```json\n[1,0,1]\n```", [1, 0, 1]),
        ("[1, 0]", None),
        ("[1, 0, 1, 1]", None),
        ("[1, 0, 2]", None),
        ("[1, 0, 1] or [0, 0, 0]", None),
        ("[true, false, true]", None),
        ("1, 0, 1", None),
        ("[[1, 0, 1]", None),
        ("] 1, 0, 1 [", None),
        ("<think>[1] or {2}</think>[1, 0, 1]", [1, 0, 1]),
        ("[1, 0, ١]", None),
        ("[" + "1," * 100_000 + "1]", None),
        ("[1, 0, 1.0]", None),
        ("Yes to all", None),
        ("", None),
    ],
)
def test_a_list_is_read_to_the_letter_or_not_at_all(text, read):
    assert prompts.read_list(text, 3) == read


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("{}", [0, 0, 0]),
        ('{"2": 8}', [0, 8, 0]),
        ('so: {"1": 0, "3": 2.5}', [0, 0, 2.5]),
        ('{"4": 1}', None),
        ('{"0": 1}', None),
        ('{"1": 11}', None),
        ('{"1": -1}', None),
        ('{"1": NaN}', None),
        ('{"1": true}', None),
        ('{"1": "5"}', None),
        ('{"1": 5, "1": 6}', None),
        ('{"x": 5}', None),
        ('{"²": 5}', None),
        ("{1: 5}", None),
        ("{} {}", None),
        ('{"1": {}}', None),
        ("nothing", None),
    ],
)
def test_strengths_are_read_to_the_letter_or_not_at_all(text, read):
    assert prompts.read_strengths(text, 3) == read
