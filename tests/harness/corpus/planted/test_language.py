"""What is planted, checked against values worked out by hand."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from harness.corpus.planted.language import CONTENT, Knobs, Language, capacity

KNOBS = Knobs(topics=3, concepts=24, conjunctions=0.5, mixtures=0.25, holding=3, promoted=3, strength=2.0, partner=0.4,
              depth=3, modulus=5, seed=1)  # fmt: skip


@pytest.fixture(scope="module")
def language() -> Language:
    return Language(KNOBS)


def of(language: Language, relation: str) -> int:
    return next(number for number, pair in enumerate(language.pairs) if pair.relation == relation)


def test_no_name_begins_another(language: Language):
    names = sorted(language.names)
    assert len(set(names)) == 24
    assert not any(after.startswith(before) for before, after in itertools.pairwise(names))


def test_as_many_names_as_are_promised_exist():
    knobs = replace(KNOBS, topics=1, concepts=capacity(), holding=1)
    names = sorted(Language(knobs).names)
    assert len(set(names)) == capacity()
    assert not any(after.startswith(before) for before, after in itertools.pairwise(names))


def test_every_concept_is_in_one_pair_of_its_topic(language: Language):
    members = [concept for pair in language.pairs for concept in (pair.first, pair.second)]
    assert sorted(members) == list(range(24))
    assert all(language.topic_of(pair.first) == language.topic_of(pair.second) for pair in language.pairs)
    assert [sum(pair.relation == kind for pair in language.pairs) for kind in ("conjunction", "mixture")] == [6, 3]


def test_the_same_seed_plants_the_same_and_another_something_else(language: Language):
    assert Language(KNOBS).names == language.names
    assert np.array_equal(Language(KNOBS).lift, language.lift)
    assert Language(replace(KNOBS, seed=2)).names != language.names


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits)
    return weights / weights.sum()


def test_two_concepts_add_up_in_the_logits(language: Language):
    pair = language.pairs[of(language, "additive")]
    topic = language.topic_of(pair.first)
    logits = language.lift[topic] + language.lift[3 + pair.first] + language.lift[3 + pair.second]
    assert np.allclose(language.content(topic, (pair.first, pair.second)), softmax(logits))


def test_a_conjunction_promotes_its_own_symbols_and_none_of_its_parts(language: Language):
    number = of(language, "conjunction")
    pair = language.pairs[number]
    topic = language.topic_of(pair.first)
    third = next(c for c in language.members(topic) if c not in (pair.first, pair.second))
    parts = set(language.promoted(3 + pair.first)) | set(language.promoted(3 + pair.second))
    assert len(language.promoted(27 + number)) == 3
    assert not parts & set(language.promoted(27 + number))
    logits = language.lift[topic] + language.lift[27 + number] + language.lift[3 + third]
    assert np.allclose(language.content(topic, (pair.second, third, pair.first)), softmax(logits))


def test_a_mixture_is_the_mean_of_what_each_part_promotes(language: Language):
    pair = language.pairs[of(language, "mixture")]
    topic = language.topic_of(pair.first)
    one, other = (softmax(language.lift[topic] + language.lift[3 + part]) for part in (pair.first, pair.second))
    assert np.allclose(language.content(topic, (pair.first, pair.second)), (one + other) / 2)


def test_the_order_of_what_holds_does_not_change_the_content(language: Language):
    held = tuple(language.members(0))[:3]
    assert np.array_equal(language.content(0, held), language.content(0, held[::-1]))
    assert len(language.content(0, held)) == len(CONTENT)


def test_the_next_name_is_zipf_without_what_holds_and_then_the_partner(language: Language):
    first = language.pairs[0].first
    topic, partner = language.topic_of(first), language.partner[first]
    found = language.naming(topic, (first,))
    weights = {concept: 1 / (place + 1) for place, concept in enumerate(language.members(topic)) if concept != first}
    for concept, weight in weights.items():
        expected = 0.6 * weight / sum(weights.values()) + (0.4 if concept == partner else 0)
        assert found[concept] == pytest.approx(expected)
    assert sum(found.values()) == pytest.approx(1)


def test_a_partner_that_holds_is_not_named_again(language: Language):
    pair = language.pairs[0]
    found = language.naming(language.topic_of(pair.first), (pair.first, pair.second))
    assert pair.second not in found
    assert sum(found.values()) == pytest.approx(1)


def test_before_the_first_name_every_topic_is_equally_likely(language: Language):
    found = language.naming(None, ())
    for topic in range(3):
        assert sum(found[concept] for concept in language.members(topic)) == pytest.approx(1 / 3)
