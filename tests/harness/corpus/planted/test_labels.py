"""Labels against a second, slow reading of the text, and the corpus against its floor."""

import random
import re
from pathlib import Path

import numpy as np
import pytest

from harness.base.settings import validated
from harness.corpus import Document, floor
from harness.corpus.build import build, load
from harness.corpus.labels import label
from harness.corpus.planted import PlantedCorpus, grammar_of
from harness.corpus.planted.language import CLOSING, OPENING
from harness.corpus.planted_labels import PlantedLabels
from harness.corpus.stored import Corpus

CONFIG = PlantedCorpus(topics=2, concepts=16, bytes_per_domain=12_000, sequence_length=64, shares=(0.6, 0.2, 0.2))


@pytest.fixture(scope="module")
def labels() -> PlantedLabels:
    return PlantedLabels(grammar_of(CONFIG.knobs()))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder: Path = tmp_path_factory.mktemp("planted")
    build(CONFIG, folder)
    return load(folder)


def read_again(labels: PlantedLabels, text: str) -> set[str]:
    """What holds after `text`, from the text alone and without the grammar's state."""
    language = labels.grammar.language
    names = re.findall(r" ([a-l]+)", text)
    spelling = re.search(r" ([a-l]*)$", text)
    whole = [name for name in names if name in language.concept_of]
    latest: list[str] = []
    for name in reversed(whole):
        if name not in latest and len(latest) < language.knobs.holding:
            latest.append(name)
    found = {f"concept {name}" for name in latest}
    concepts = {language.concept_of[name] for name in latest}
    for pair in language.pairs:
        if {pair.first, pair.second} <= concepts:
            found.add(f"{pair.relation} {language.names[pair.first]} {language.names[pair.second]}")
    if whole:
        found.add(f"topic {language.topic_of(language.concept_of[whole[0]])}")
    for setting, name in (("<>", "plural"), ("-+", "past")):
        symbols = [symbol for symbol in text if symbol in setting]
        if symbols and symbols[-1] == setting[1]:
            found.add(name)
    stack: list[str] = []
    for symbol in text:
        if symbol in OPENING:
            stack.append(symbol)
        elif symbol in CLOSING:
            stack.pop()
    found |= {f"depth at least {depth}" for depth in range(1, len(stack) + 1)}
    if stack:
        found.add(f"inside {stack[-1]}")
    digits = re.findall(r"\d", text)
    found.add(f"counter {digits[-1] if digits else 0}")
    if spelling and spelling[1] not in language.concept_of:
        found.add("in a name")
    return found


def test_labels_are_those_of_a_second_reading(labels: PlantedLabels):
    names = [concept.name for concept in labels.concepts]
    assert len(set(names)) == len(names)
    for number in range(12):
        text = labels.grammar.speak(number % 2, 150, random.Random(number))
        tokens, held = labels.held(Document("", "", text, ""), np.arange(1, 151))
        for token in range(150):
            assert {names[concept] for concept in held[tokens == token]} == read_again(labels, text[: token + 1])


def test_a_token_of_several_symbols_has_the_state_after_its_last(labels: PlantedLabels):
    text = labels.grammar.speak(0, 40, random.Random(1))
    _, each = labels.held(Document("", "", text, ""), np.array([40]))
    tokens, all_ = labels.held(Document("", "", text, ""), np.arange(1, 41))
    assert sorted(each) == sorted(all_[tokens == 39])


def test_pairs_name_their_parts(labels: PlantedLabels):
    known = {concept.name for concept in labels.concepts}
    pairs = [concept for concept in labels.concepts if concept.parts]
    assert len(pairs) == 8
    assert all(set(pair.parts) <= known for pair in pairs)


def test_every_sequence_is_one_document_with_a_token_a_symbol(corpus: Corpus):
    for split in (corpus.train, corpus.dev, corpus.eval):
        documents = split.column("document")
        assert (documents == documents[:, :1]).all()
        assert len(np.unique(documents[:, 0])) == len(split)
        assert (split.column("n_bytes")[:, 1:] == 1).all()
        assert (split.column("input_ids")[:, 0] == corpus.info.end_of_text).all()
    assert corpus.info.left_over == {"train": 0, "dev": 0, "eval": 0}


def test_topics_have_equally_much_text(corpus: Corpus):
    sizes = corpus.info.sizes["train"]
    assert sizes["topic0"].bytes == sizes["topic1"].bytes


def test_labels_line_up_with_the_packed_tokens(corpus: Corpus, labels: PlantedLabels):
    found = label(CONFIG.labeller(corpus.info.domains), corpus.eval, corpus.documents.__getitem__, 3)
    names = [concept.name for concept in found.concepts]
    assert found.n_tokens == 3 * 64
    assert found.known.all()
    for sequence, token in ((0, 0), (0, 1), (1, 40), (2, 63)):
        document = corpus.documents[int(corpus.eval.column("document")[sequence, 0])]
        place = sequence * 64 + token
        here = {names[concept] for concept in found.held[found.indptr[place] : found.indptr[place + 1]]}
        assert here == (read_again(labels, document.text[:token]) if token else set())


def test_the_floor_lines_up_with_the_packed_tokens(corpus: Corpus):
    found = floor.log_probabilities(CONFIG, corpus.eval, corpus.documents.__getitem__, 2)
    assert found is not None
    assert found.shape == (2, 64)
    document = corpus.documents[int(corpus.eval.column("document")[1, 0])]
    assert found[1, 0] == 0
    assert np.isfinite(found).all()  # a document is a sequence: none is cut
    assert np.allclose(found[1, 1:], CONFIG.log_probabilities(document.text))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"concepts": 190}, "multiple of 8 .nearest: 192"),
        ({"concepts": 16 * 40}, "there are"),
        ({"concepts": 8, "holding": 2}, "holding 2: a topic has only 2"),
        ({"conjunctions": 0.7, "mixtures": 0.6}, "sum to more than 1"),
        ({"vocab_size": 300}, "vocab_size"),
        ({"topic": 3}, "topics"),
    ],
)
def test_what_cannot_be_planted_is_said_in_one_line(wrong: dict[str, object], says: str):
    with pytest.raises(Exception, match=says) as error:
        validated(PlantedCorpus, wrong, where="corpus")
    assert "\n" not in str(error.value)
