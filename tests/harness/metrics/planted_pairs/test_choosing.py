"""Which units and contexts a pair of concepts gets, on codes written down by hand."""

from __future__ import annotations

import numpy as np

from harness.corpus.labels import Concept, Labels
from harness.metrics.concepts.detection import detect
from harness.metrics.concepts.tellers import activity_of, tellers
from harness.metrics.concepts.tokens import Asked, Held
from harness.metrics.joint.pairs import Fired
from harness.metrics.planted_pairs.choosing import (
    UNPLANTED,
    Choosing,
    ConceptPair,
    by_stratum,
    only_parts,
    planted,
    unplanted,
)
from harness.systems.system import Site

EARLY, LATE = Site(0, "mlp_out"), Site(2, "mlp_out")
NAMES = tuple(Concept(name, "concept") for name in "abcd")
AB, CD = Concept("ab", "conjunction", ("a", "b")), Concept("cd", "additive", ("c", "d"))
TOKENS = 60


def held() -> np.ndarray:
    """Tokens × concepts: a, b together on the first ten, then each alone; c and d likewise; b and c on the last ten."""
    truth = np.zeros((TOKENS, 4), bool)
    truth[:15, 0], truth[:10, 1], truth[15:20, 1] = True, True, True
    truth[20:35, 2], truth[20:30, 3], truth[35:40, 3] = True, True, True
    truth[50:, 1], truth[50:, 2] = True, True
    return truth


def asking() -> Asked:
    _, concept = held().nonzero()
    indptr = np.concatenate([[0], np.cumsum(held().sum(1))])
    of = Held(indptr, concept.astype(np.int32), 4, np.arange(TOKENS) // 10)
    return Asked(NAMES, of, of, 0)


def fired(values: np.ndarray) -> Fired:
    token, unit = values.nonzero()
    value = values[token, unit].astype(np.float32)
    return Fired(token, unit, value, np.abs(value), len(values), *values.shape)


def firing() -> dict[Site, Fired]:
    """Early: unit 1 tells b; negative, it does; positive on some others. Late: unit 0 tells a, 1 c, 2 d, 3 a and b."""
    truth = held()
    early, late = np.zeros((TOKENS, 2)), np.zeros((TOKENS, 4))
    early[truth[:, 1], 1] = -1.0
    early[:3, 1] = 1.0
    late[:, [0, 1, 2]] = truth[:, [0, 2, 3]]
    late[truth[:, 0] | truth[:, 1], 3] = 1.0
    return {EARLY: fired(early), LATE: fired(late)}


def choosing(contexts: int, least_f1: float = 0.5, tried: int = 4) -> Choosing:
    activity = activity_of(firing())
    detection = detect(activity, asking().dev, activity, asking().eval)
    told = tellers(detection, firing(), least_f1, tried)
    return Choosing(asking(), told, firing(), contexts, np.random.default_rng(0))


def test_the_earlier_unit_is_a_and_contexts_are_where_both_hold_and_both_fire_with_their_signs() -> None:
    found = choosing(7).tested(ConceptPair("conjunction", 0, 1))
    assert found is not None
    assert (found.a.site, found.a.unit, found.a.sign) == (EARLY, 1, -1)
    assert (found.b.site, found.b.unit, found.b.sign) == (LATE, 0, 1)
    assert firing()[EARLY].token[found.entries_a].tolist() == list(range(3, 10))
    assert firing()[LATE].token[found.entries_b].tolist() == list(range(3, 10))


def test_where_the_best_two_do_not_fire_together_often_enough_the_next_two_stand_for_them() -> None:
    found = choosing(8).tested(ConceptPair("conjunction", 0, 1))
    assert found is not None
    assert {(found.a.site, found.a.unit), (found.b.site, found.b.unit)} == {(LATE, 0), (LATE, 3)}
    assert choosing(8, tried=1).tested(ConceptPair("conjunction", 0, 1)) is None
    assert choosing(11).tested(ConceptPair("conjunction", 0, 1)) is None


def test_a_concept_that_no_unit_tells_well_enough_is_not_told() -> None:
    pair = ConceptPair("conjunction", 0, 1)
    assert choosing(7, least_f1=0.9).is_told(pair)
    assert not choosing(7, least_f1=0.99).is_told(pair)  # of 25 tokens with b the unit misses three
    assert choosing(7, least_f1=0.99).is_told(ConceptPair("additive", 2, 3))


def test_pairs_are_those_that_the_corpus_names_and_others_that_hold_together_often_enough() -> None:
    rare = Concept("ax", "mixture", ("a", "x"))
    assert planted((*NAMES, AB, CD, rare), asking()) == (
        [ConceptPair("conjunction", 0, 1), ConceptPair("additive", 2, 3)],
        ["mixture"],
    )
    assert unplanted((*NAMES, AB, CD), asking(), 10) == [ConceptPair(UNPLANTED, 1, 2)]
    assert unplanted((*NAMES, AB, CD), asking(), 11) == []


def test_only_concepts_that_are_parts_are_looked_for() -> None:
    labels = Labels(
        (NAMES[0], Concept("z", "topic"), NAMES[1], AB),
        np.array([0, 2, 2, 4]),
        np.array([0, 1, 2, 3]),
        np.ones(3, bool),
    )
    found = only_parts(labels)
    assert [concept.name for concept in found.concepts] == ["a", "b"]
    assert found.indptr.tolist() == [0, 1, 1, 2]
    assert found.held.tolist() == [0, 1]


def test_pairs_are_put_in_order_of_their_sites_and_their_contexts_are_numbered_through() -> None:
    one = choosing(7)
    tested = list(one.all_tested([ConceptPair("additive", 2, 3), ConceptPair("conjunction", 0, 1)]))
    ordered, chosen = by_stratum(tested, firing())
    assert [pair.pair.relation for pair in ordered] == ["conjunction", "additive"]
    assert [(part.stratum.a, part.stratum.b) for part in chosen] == [(EARLY, LATE), (LATE, LATE)]
    assert np.concatenate([part.contexts.pair for part in chosen]).tolist() == [0] * 7 + [1] * 7
    assert chosen[0].units.tolist() == [[1, 0]]
    assert chosen[0].contexts.value_a.tolist() == [-1.0] * 7
