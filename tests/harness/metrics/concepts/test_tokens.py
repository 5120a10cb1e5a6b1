from dataclasses import replace

import numpy as np

from harness.corpus.labels import Concept
from harness.metrics.concepts.tokens import Wanted, asked, numbered

from .conftest import asked_of, held_of, labels_of


def test_rare_concepts_and_nearly_certain_ones_are_not_asked():
    dev = np.zeros((100, 4), bool)
    dev[::10, 0] = True
    dev[:6, 1] = True  # in one document
    dev[:, 2] = True
    dev[::30, 3] = True
    found = asked_of(dev, dev)
    assert [concept.name for concept in found.concepts] == ["c0"]
    assert found.left_out == 3


def test_a_concept_must_hold_in_both_splits():
    dev, evaluation = np.zeros((2, 100, 2), bool)
    dev[::9] = True
    evaluation[::9, 1] = True
    found = asked_of(dev, evaluation)
    assert [concept.name for concept in found.concepts] == ["c1"]
    assert found.dev.n_concepts == 1
    assert found.eval.positives().tolist() == [12]


def test_permuting_moves_whole_sequences_and_keeps_what_is_common_where():
    truth = np.random.default_rng(0).random((60, 3)) < 0.3
    held = held_of(truth)
    moved = held.permuted(10, seed=1)
    assert np.array_equal(moved.positives(), held.positives())
    dense, before = (one.matrix().toarray().reshape(6, 10, 3) for one in (moved, held))
    assert not np.array_equal(dense, before)
    assert sorted(map(bytes, dense)) == sorted(map(bytes, before))
    assert np.array_equal(moved.document, held.document)


def test_counts_by_document():
    truth = np.zeros((20, 2), bool)
    truth[[0, 1, 15], 0] = True
    assert held_of(truth, documents=2).by_document().tolist() == [[2, 0], [1, 0]]


def test_tokens_of_each_concept_ascend():
    truth = np.random.default_rng(0).random((40, 3)) < 0.3
    truth[:, 1] = False
    for concept, tokens in enumerate(held_of(truth).tokens_of_each()):
        assert tokens.tolist() == np.flatnonzero(truth[:, concept]).tolist()


def test_documents_are_numbered_in_order_of_their_ids():
    assert numbered([7, 7, 3, 9]).tolist() == [1, 1, 0, 2]


def test_of_many_concepts_every_kind_keeps_its_share():
    kinds = ["square"] * 30 + ["check"] * 2 + ["pin"] * 10
    truth = np.random.default_rng(0).random((400, 42)) < 0.4
    labels = replace(labels_of(truth), concepts=tuple(Concept(f"c{i}", kind) for i, kind in enumerate(kinds)))
    documents = np.arange(400) // 40
    found = asked(labels, labels, documents, documents, Wanted(5, 2, 12, 0))
    assert {kind: len(places) for kind, places in found.kinds().items()} == {"square": 5, "check": 2, "pin": 5}
    assert found.left_out == 30
    places = [int(concept.name[1:]) for concept in found.concepts]
    assert places == sorted(places)
    assert np.array_equal(found.dev.matrix().toarray() > 0, truth[:, places])
    other = asked(labels, labels, documents, documents, Wanted(5, 2, 12, 1))
    assert other.concepts != found.concepts


def test_what_holds_on_every_token_of_text_tells_nothing():
    truth = np.zeros((100, 3), bool)
    truth[::2, 0] = True  # text is every second token
    truth[::4, 1] = True
    truth[::20, 2] = True
    text = np.arange(0, 100, 2)
    found = asked_of(truth, truth).telling(text, text, 5)
    assert [concept.name for concept in found.concepts] == ["c1", "c2"]
    assert np.array_equal(found.dev.matrix().toarray() > 0, truth[:, 1:])
    assert found.left_out == 1
    other = truth.copy()
    other[::8, 0] = False
    for one, two in ((truth, other), (other, truth)):  # on either split
        assert len(asked_of(one, two).telling(text, text, 5).concepts) == 2
