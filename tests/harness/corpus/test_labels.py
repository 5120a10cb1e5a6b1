import numpy as np
import pytest
import scipy.sparse

from harness.corpus import Document, quiet
from harness.corpus.build import build, load
from harness.corpus.labels import Concept, Labels, begun, label
from harness.corpus.packing import pack
from harness.corpus.tokenizer import own_reader, train_tokenizer

CONCEPTS = (
    Concept("past the middle", "place"),
    Concept("an odd number of é", "letter"),
    Concept("ends inside a character", "letter"),
    Concept("never", "none", parts=("past the middle", "an odd number of é")),
    Concept("of an apple", "domain"),
)


def holds(document, end):
    """Which of `CONCEPTS` hold after `end` bytes, one token at a time."""
    data = document.text.encode()
    read = data[:end]
    return [
        2 * end > len(data),
        read.count("é".encode()) % 2 == 1,
        end < len(data) and data[end] & 0xC0 == 0x80,
        False,
        document.domain == "apples",
    ]


class Toy:
    """Labels that depend on every byte, given in a scrambled order."""

    concepts = CONCEPTS
    from_beginning = False

    def held(self, document, ends):
        assert (np.diff(ends) > 0).all()
        token, concept = np.nonzero([holds(document, end) for end in ends.tolist()])
        order = np.random.default_rng(len(ends)).permutation(len(token))
        return token[order], concept[order]


class Board(Toy):
    """Known only to who has read the document from its beginning."""

    from_beginning = True


class Split:
    """A packed split without its file."""

    def __init__(self, packed):
        self._columns = packed.columns

    def __len__(self):
        return len(self._columns["input_ids"])

    def column(self, name):
        return self._columns[name]


def by_hand(split, document, sequences):
    """Token by token through the sequences, counting bytes of the document that each one belongs to."""
    documents, n_bytes = split.column("document")[:sequences], split.column("n_bytes")[:sequences]
    read, rows = {}, []
    for row, size in zip(documents.reshape(-1).tolist(), n_bytes.reshape(-1).tolist(), strict=True):
        read[row] = read.get(row, 0) + size
        rows.append(holds(document(row), read[row]) if size else [False] * len(CONCEPTS))
    return np.array(rows)


def dense(labels):
    shape = (labels.n_tokens, len(labels.concepts))
    return scipy.sparse.csr_array((np.ones(len(labels.held)), labels.held, labels.indptr), shape=shape).toarray() > 0


@pytest.fixture(scope="module")
def byte_corpus(config, tmp_path_factory):
    """A token a byte, so that é is two, and a document goes over dozens of sequences."""
    folder = tmp_path_factory.mktemp("bytes")
    build(config.model_copy(update={"vocab_size": 257, "sequence_length": 7}), folder)
    return load(folder)


@pytest.mark.parametrize("name", ["train", "dev", "eval"])
@pytest.mark.parametrize("which", ["corpus", "byte_corpus"])
def test_every_token_has_the_labels_of_the_bytes_read_so_far_across_sequences(which, name, request):
    corpus = request.getfixturevalue(which)
    split, sequences = getattr(corpus, name), 300
    documents = {row: corpus.documents[row] for row in np.unique(split.column("document")[:sequences]).tolist()}
    found = label(Toy(), split, documents.__getitem__, sequences)
    wanted = by_hand(split, documents.__getitem__, sequences)
    np.testing.assert_array_equal(dense(found), wanted)
    assert found.indptr.dtype == np.int64
    assert found.held.dtype == np.int32
    assert wanted[:, [0, 1, 4]].any(axis=0).all()
    assert which == "corpus" or wanted[:, 2].any()
    assert found.known.all()


def test_a_board_is_known_where_the_sequence_shows_the_beginning_and_elsewhere_nothing_is_said(byte_corpus):
    split, document = byte_corpus.eval, byte_corpus.documents.__getitem__
    found, all_of_it = (label(labeller, split, document) for labeller in (Board(), Toy()))
    for sequence, (documents, n_bytes) in enumerate(
        zip(split.column("document").tolist(), split.column("n_bytes").tolist(), strict=True)
    ):
        shown = {row for row, size in zip(documents, n_bytes, strict=True) if size == 0}  # an end of text begins one
        for place, row in enumerate(documents):
            assert found.known[sequence * split.length + place] == (row in shown)
    np.testing.assert_array_equal(dense(found), dense(all_of_it) & found.known[:, None])
    assert 0 < found.known.sum() < found.n_tokens


def test_a_document_that_fills_a_sequence_to_its_end_cuts_nothing():
    documents = np.array([[7, 7, 8], [8, 8, 9], [9, 9, 9], [9, 9, 9], [10, 10, 11]])
    wanted = [[1, 1, 1], [0, 0, 1], [0, 0, 0], [0, 0, 0], [1, 1, 1]]
    np.testing.assert_array_equal(begun(documents), np.array(wanted, bool))
    assert begun(documents[:0]).shape == (0, 3)


def test_the_first_sequences_have_the_labels_that_they_have_in_the_whole_split(corpus):
    whole = label(Toy(), corpus.eval, corpus.documents.__getitem__)
    assert whole.n_tokens == len(corpus.eval) * corpus.eval.length
    for sequences in (0, 1, 5, len(corpus.eval) + 1):
        part = label(Toy(), corpus.eval, corpus.documents.__getitem__, sequences)
        tokens = min(sequences, len(corpus.eval)) * corpus.eval.length
        np.testing.assert_array_equal(part.indptr, whole.indptr[: tokens + 1])
        np.testing.assert_array_equal(part.held, whole.held[: whole.indptr[tokens]])


def test_documents_shorter_than_a_sequence_and_without_text_keep_their_places():
    documents = [Document(str(n), "apples", text, str(n)) for n, text in enumerate(["éa", "", "b", "", "", "cdé🎉"])]
    tokenizer = train_tokenizer(["x"], 257)
    split = Split(pack(documents, 0, ("apples",), own_reader(tokenizer), 2, quiet))
    found = label(Toy(), split, documents.__getitem__)
    assert found.n_tokens == 18
    np.testing.assert_array_equal(dense(found), by_hand(split, documents.__getitem__, None))
    assert np.diff(found.indptr)[[0, 4, 5, 7, 8, 9]].tolist() == [0] * 6  # an end of text means nothing


def test_labels_come_back_as_they_were_saved(corpus, tmp_path):
    labels = label(Board(), corpus.dev, corpus.documents.__getitem__)
    for name in ("labels.npz", "labels"):
        labels.save(tmp_path / name)
        again = Labels.load(tmp_path / name)
        assert again.concepts == CONCEPTS
        np.testing.assert_array_equal(again.indptr, labels.indptr)
        np.testing.assert_array_equal(again.held, labels.held)
        np.testing.assert_array_equal(again.known, labels.known)
        assert (again.indptr.dtype, again.held.dtype) == (np.int64, np.int32)
