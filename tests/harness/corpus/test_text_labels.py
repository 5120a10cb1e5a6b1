import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.corpus import Document
from harness.corpus.files import FilesCorpus
from harness.corpus.installed import InstalledCorpus
from harness.corpus.text_labels import TextLabeller, last_characters

LABELLER = TextLabeller(("apples", "pears"))
OPENS = {"(": ")", "[": "]", "{": "}"}


def held(text, ends=None, labeller=LABELLER, domain="pears"):
    """The names that hold at each end (default: at every byte)."""
    ends = np.arange(1, len(text.encode()) + 1) if ends is None else np.array(ends)
    tokens, concepts = labeller.held(Document("x", domain, text, "x"), ends)
    assert len(set(zip(tokens.tolist(), concepts.tolist(), strict=True))) == len(tokens)
    found = [set() for _ in ends]
    for token, concept in zip(tokens, concepts, strict=True):
        found[token].add(labeller.concepts[concept].name)
    return found


def where(text, name):
    """`text` with a dot for every character after which the concept does not hold. ASCII."""
    return "".join(c if name in names else "." for c, names in zip(text, held(text), strict=True))


def expected(read):
    """The same from what has been read and nothing else, character by character."""
    stack, quoted = [], False
    for at, c in enumerate(read):
        if c == "\n" and re.search(r"\n[ \t\r]*\n\Z", read[: at + 1]):
            stack, quoted = [], False
        elif c in OPENS:
            stack.append(c)
        elif c in OPENS.values():
            matching = [place for place, opened in enumerate(stack) if OPENS[opened] == c]
            stack = stack[: matching[-1]] if matching else stack
        elif c == '"':
            quoted = not quoted
        elif c in "“”":
            quoted = c == "“"
    names = {"domain pears"}
    names |= {"in brackets", f"in {stack[-1]}"} if stack else set()
    names |= {"in brackets, two or deeper"} if len(stack) > 1 else set()
    names |= {"in double quotes"} if quoted else set()
    word = re.search(r"[^\W_]*\Z", read)[0]
    names |= {"capitalised word"} if word[:1].isupper() else set()
    names |= {"word in capitals"} if len(word) > 1 and all(c.isupper() for c in word) else set()
    names |= {"number"} if word and all(c.isdigit() for c in word) else set()
    names |= {"URL"} if re.search(r'\bhttps?://[^\s<>"]*\Z', read) else set()
    names |= {"beginning of a line"} if read.rpartition("\n")[2].strip(" \t") == "" and read else set()
    return names


PIECES = [
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    '"',
    "“",
    "”",
    "\n",
    "\n\n",
    "\n \n",
    " ",
    "\t",
    "Ab",
    "USA",
    "USe",
    "12",
    "3rd",
]
PIECES += ["http://a.b/c", "https://", "é", "Éa", "日本", "🎉", "'", "_", "\r\n", "²", "x"]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=30))
def test_labels_are_what_the_text_read_so_far_says_at_every_byte(pieces):
    text = "".join(pieces)
    for end, names in enumerate(held(text), start=1):
        assert names == expected(text.encode()[:end].decode(errors="ignore"))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=30), st.data())
def test_a_token_has_the_labels_of_its_last_byte(pieces, data):
    text = "".join(pieces)
    ends = sorted(data.draw(st.sets(st.integers(1, len(text.encode())), min_size=1)))
    by_byte = held(text)
    assert held(text, ends) == [by_byte[end - 1] for end in ends]


def test_brackets_that_do_not_match():
    assert where("a) (b", "in brackets") == "...(b"
    assert where("(a [b) c", "in brackets") == "(a [b..."
    assert where("(a [b) c", "in ["), where("(a [b) c", "in (") == ("...[b...", "(a .....")
    assert where("(a\n b\n \nc", "in brackets") == "(a\n b\n .."
    assert where("f(x[1])", "in brackets, two or deeper") == "...[1.."


def test_words_and_addresses_count_as_far_as_they_are_read():
    assert where("USe NATO A", "word in capitals") == ".S...ATO.."
    assert where("3rd 42", "number") == "3...42"
    assert where("see <https://a.b> c", "URL") == "............/a.b..."


def test_a_character_counts_once_it_is_whole():
    assert last_characters("aé日🎉b", np.arange(1, 12)).tolist() == [0, 0, 1, 1, 1, 2, 2, 2, 2, 3, 4]
    assert held("Éa", [1, 2]) == [{"domain pears"}, {"domain pears", "capitalised word"}]


def test_names_are_unique_and_labels_of_code_come_with_the_domain():
    labeller = InstalledCorpus().labeller(("prose", "code"))
    names = [concept.name for concept in labeller.concepts]
    assert len(set(names)) == len(names)
    assert "Python keyword" in names
    assert not any(c.kind == "python" for c in InstalledCorpus().labeller(("prose",)).concepts)
    assert held("if x", labeller=labeller, domain="prose")[1] == {"domain prose"}
    assert held("if x", labeller=labeller, domain="code")[1] == {"domain code", "Python keyword"}


def test_a_kind_without_labels_of_its_own_has_those_of_any_text(tmp_path):
    assert FilesCorpus(path=tmp_path).labeller(("a",)).concepts == TextLabeller(("a",)).concepts
    with pytest.raises(KeyError):
        held("text", domain="plums")
