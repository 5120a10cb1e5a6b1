from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from harness.metrics.autointerp.collect import WantedContexts, collect
from harness.metrics.autointerp.contexts import NEAR_MISS, RANDOM, UnitContexts, items

Planted = Callable[[str], UnitContexts]
NAMES = ("the", "money", "closing", "hidden")


def test_contexts_to_explain_and_to_score_never_share_a_document(planted: Planted) -> None:
    for name in NAMES:
        unit = planted(name)
        explain = {context.document for context in (*unit.explain, *unit.explain_silent)}
        score = {context.document for context in (*unit.score, *unit.score_silent, *unit.near_misses)}
        assert explain
        assert score
        assert not explain & score


def test_windows_show_the_trigger_where_the_unit_fires_or_nothing_at_all(planted: Planted) -> None:
    for name in NAMES:
        unit = planted(name)
        for context in (*unit.explain, *unit.score):
            assert context.activations[context.trigger] > 0
            assert len(context.tokens) == len(context.activations) <= 20
        for context in (*unit.explain_silent, *unit.score_silent, *unit.near_misses):
            assert not any(context.activations)


def test_activating_contexts_come_from_every_quantile_alike_and_the_strongest_lead(planted: Planted) -> None:
    unit = planted("the")
    assert Counter(unit.score_quantiles) == dict.fromkeys(range(5), 4)
    peaks = [context.activations[context.trigger] for context in unit.explain]
    assert peaks == sorted(peaks, reverse=True)
    by_quantile = [
        np.mean(
            [c.activations[c.trigger] for c, q in zip(unit.score, unit.score_quantiles, strict=True) if q == wanted]
        )
        for wanted in range(5)
    ]
    assert by_quantile == sorted(by_quantile)


def test_near_misses_share_the_token_or_the_one_before_or_are_where_neighbours_fire(
    world, wanted: WantedContexts
) -> None:
    money, the = (np.flatnonzero(world.fires(name)) for name in ("money", "the"))
    strengths = np.ones(len(money), np.float32)
    unit = collect(world.text(), "", 0, money, strengths, [the], wanted, np.random.default_rng(0))
    assert unit is not None
    found = Counter((c.tokens[max(0, c.trigger - 1)], c.tokens[c.trigger]) for c in unit.near_misses)
    kinds = Counter(
        "neighbour"
        if token == " the"
        else "before"
        if before == "$"
        else "token"
        if token in ("42", " 42", "7")
        else ""
        for before, token in found.elements()
    )
    assert kinds == {"token": 4, "before": 3, "neighbour": 3}


def test_silent_windows_are_no_shorter_than_activating_ones(world, wanted: WantedContexts) -> None:
    """A unit on every seventh token is silent in whole windows nearly only at the edges of documents."""
    tokens = np.flatnonzero(np.random.default_rng(2).random(world.ids.size) < 0.15)
    strengths = np.ones(len(tokens), np.float32)
    unit = collect(world.text(), "", 0, tokens, strengths, (), wanted, np.random.default_rng(0))
    assert unit is not None
    active = np.mean([len(context.tokens) for context in unit.score])
    assert np.mean([len(context.tokens) for context in unit.score_silent]) > active - 2


def test_a_unit_with_too_few_contexts_is_none(world, wanted: WantedContexts) -> None:
    tokens = np.flatnonzero(world.fires("the"))[:25]  # all in the first documents
    strengths = np.ones(len(tokens), np.float32)
    generator = np.random.default_rng(0)
    assert collect(world.text(), "", 0, tokens, strengths, (), wanted, generator) is None
    assert collect(world.text(), "", 0, tokens, strengths, (), replace(wanted, least=2), generator) is not None


def test_items_carry_labels_and_groups(planted: Planted) -> None:
    asked = items(planted("money"))
    assert [item.label for item in asked] == [1] * 20 + [0] * 30
    assert Counter(item.group for item in asked) == {RANDOM: 20, NEAR_MISS: 10, **dict.fromkeys(range(5), 4)}
