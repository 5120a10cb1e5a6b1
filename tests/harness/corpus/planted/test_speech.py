"""What is said has the probabilities that are stated, and following it finds the state again."""

import math
import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chisquare

from harness.base.errors import HarnessError
from harness.corpus.planted.language import (
    AGREEING,
    CLOSING,
    CONTENT,
    DIGITS,
    NAMING,
    OPENING,
    SETTING,
    Knobs,
    Language,
)
from harness.corpus.planted.speech import Grammar, State

KNOBS = Knobs(topics=2, concepts=16, conjunctions=0.5, mixtures=0.25, holding=2, promoted=3, strength=2.0, partner=0.4,
              depth=2, modulus=3, seed=3)  # fmt: skip
SYMBOLS = [*"abcdefghijkl", *CONTENT, NAMING, *OPENING, *CLOSING, *DIGITS, *"".join(SETTING), *"".join(AGREEING)]


@pytest.fixture(scope="module")
def grammar() -> Grammar:
    return Grammar(Language(KNOBS))


@pytest.fixture(scope="module")
def documents(grammar: Grammar) -> list[str]:
    return [grammar.speak(number % 2, 120, random.Random(number)) for number in range(1500)]


def test_probabilities_sum_to_one_in_every_state_that_is_met(grammar: Grammar, documents: list[str]):
    states = {State(), *(state for text in documents[:40] for state in grammar.follow(text))}
    assert len(states) > 1000
    for state in states:
        assert sum(grammar.probability(state, symbol) for symbol in SYMBOLS) == pytest.approx(1)


def test_no_symbol_comes_that_has_no_probability(grammar: Grammar, documents: list[str]):
    for text in documents[:200]:
        assert all(math.isfinite(value) for value in grammar.log_probabilities(text))


def test_counted_frequencies_are_those_stated(grammar: Grammar, documents: list[str]):
    """Chi-squared in every state of the rules that is met often: what is held, how deep, what was set."""
    seen: dict[tuple[object, ...], Counter[str]] = {}
    stated: dict[tuple[object, ...], dict[str, float]] = {}
    for text in documents:
        state = State()
        for symbol in text:
            # The first document's letter hides the topic from a reader: so does the state.
            key = (state.topic, state.held, state.spelt, state.brackets, state.counter, state.features)
            seen.setdefault(key, Counter())[symbol] += 1
            if key not in stated:
                stated[key] = {s: p for s in SYMBOLS if (p := grammar.probability(state, s)) > 0}
            state = grammar.after(state, symbol)
    tested = []
    for key, counts in seen.items():
        total = sum(counts.values())
        often = [symbol for symbol, p in stated[key].items() if p * total >= 5]
        rest = 1 - sum(stated[key][symbol] for symbol in often)
        if len(often) < 2:
            continue
        observed = [counts[symbol] for symbol in often]
        expected = [stated[key][symbol] * total for symbol in often]
        if rest * total >= 5:
            observed.append(total - sum(observed))
            expected.append(rest * total)
        else:
            scale = sum(observed) / sum(expected)
            expected = [value * scale for value in expected]
        tested.append(chisquare(observed, expected).pvalue)
    assert len(tested) > 100
    # p-values of a true hypothesis are uniform: a twentieth of them below 0.05, none far below.
    assert np.mean(np.array(tested) < 0.05) < 0.1
    assert min(tested) > 0.01 / len(tested)


def test_the_floor_is_the_entropy_of_what_is_said(grammar: Grammar, documents: list[str]):
    """−ln P averages to the entropy of the stated distribution in the same states."""
    losses, entropies = [], []
    for text in documents[:300]:
        losses += grammar.log_probabilities(text)
        state = State()
        for symbol in text:
            p = [q for s in SYMBOLS if (q := grammar.probability(state, s)) > 0]
            entropies.append(-sum(q * math.log(q) for q in p))
            state = grammar.after(state, symbol)
    spread = np.std(np.array(losses) + np.array(entropies)) / math.sqrt(len(losses))
    assert abs(np.mean(losses) + np.mean(entropies)) < 4 * spread


def test_following_a_text_by_hand(grammar: Grammar):
    language = grammar.language
    first, second, third = list(language.members(0))[:3]
    a, b, c = (language.names[concept] for concept in (first, second, third))
    state = grammar.follow(f" {a}A(> {b}1+[2]")[-1]
    assert state == State(topic=0, held=(second, first), spelt=None, brackets=(0,), counter=2, features=(1, 1))
    assert grammar.follow(f" {a} {b} {c}")[-1].held == (third, second)
    assert grammar.follow(f" {a} {b} {a}")[-1].held == (first, second)
    assert grammar.follow(f" {a} {b[:1]}")[-1].spelt == b[:1]


@pytest.mark.parametrize("wrong", [")", "a", "~"])
def test_what_cannot_follow_is_an_error_of_one_line(grammar: Grammar, wrong: str):
    name = grammar.language.names[0]
    with pytest.raises(HarnessError, match="not a text of this language"):
        grammar.follow(f" {name}{wrong}")


def test_a_partner_is_held_more_often_where_it_is_named_on_purpose(grammar: Grammar, documents: list[str]):
    indifferent = Grammar(Language(replace(KNOBS, partner=0.0)))
    by_chance = [indifferent.speak(number % 2, 120, random.Random(number)) for number in range(1500)]

    def together(of: Grammar, said: list[str]) -> float:
        return float(np.mean([len(of.language.pairs_among(of.follow(text)[60].held)) > 0 for text in said]))

    assert together(grammar, documents) > 1.5 * together(indifferent, by_chance)


def test_a_document_has_its_length_and_is_the_same_again(grammar: Grammar):
    first, again, other = (grammar.speak(0, 77, random.Random(seed)) for seed in (5, 5, 6))
    assert len(first) == 77
    assert first == again
    assert first != other
