import pytest

from harness.corpus.excerpts import documents_of, excerpts


@pytest.mark.parametrize("limit", [64, 100, 1000])
def test_pieces_fit_and_lose_only_line_breaks(limit):
    text = "\n\n".join(f"Пункт {n}: " + "слово " * (n % 17) for n in range(60))
    pieces = excerpts(text, limit)
    assert all(len(piece.encode()) <= limit for piece in pieces)
    assert "".join(pieces).replace("\n", "") == text.replace("\n", "")


def test_a_text_without_spaces_is_cut_between_characters():
    for text in ("é" * 101, "a" + "é" * 101, "ab" + "日" * 101):
        assert "".join(excerpts(text, 64)) == text


def test_a_cut_prefers_the_blank_line_to_the_line_break():
    text = "a" * 40 + "\n\n" + "b" * 10 + "\n" + "c" * 40
    assert excerpts(text, 64) == ["a" * 40, "b" * 10 + "\n" + "c" * 40]


def test_a_short_text_is_one_piece_and_an_empty_one_none():
    assert excerpts("abc\n", 64) == ["abc"]
    assert excerpts(" \n\n", 64) == []


def test_documents_keep_stable_ids_and_begin_anywhere():
    texts = ["\n".join(f"line {n} of a long text" for n in range(100))]
    firsts = set()
    for source in map(str, range(20)):
        documents = documents_of(source, "prose", texts, 200)
        numbers = [int(document.id.split("#")[1]) for document in documents]
        assert sorted(numbers) == list(range(len(documents)))
        firsts.add(numbers[0])
    assert len(firsts) > 3
