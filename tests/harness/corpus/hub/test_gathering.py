import pytest

from harness.base.errors import BadInput
from harness.corpus.hub.gathering import Demand, Gathering
from harness.corpus.select import split_of

SHARES = (0.6, 0.2, 0.2)


def gathering(domains=("web", "law"), column="kind", **changed):
    settings = {
        "bytes_per_domain": 20_000,
        "max_document_bytes": 1024,
        "shares": SHARES,
        "seed": 0,
        "shuffle_buffer": 10,
        "excerpts_per_record": 8,
        "max_records": 1000,
    }
    return Gathering(Demand(domains=domains, **{**settings, **changed}), "dataset a/b", column)


def refused(found):
    with pytest.raises(BadInput) as caught:
        found.check()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_no_more_is_kept_of_a_domain_and_split_than_is_wanted_and_a_tenth(text):
    found, kept = gathering(("web",)), []
    for number in range(300):
        kept += found.take(text(number), "web")
    assert found.enough()
    for share, split in zip(SHARES, ("train", "dev", "eval"), strict=True):
        size = sum(len(each.text) for each in kept if split_of(each.source, SHARES) == split)
        assert 0 <= size - 1.1 * 20_000 * share < 1024


def test_the_same_text_is_the_same_document_whatever_came_before_it(text):
    one, other = gathering(), gathering()
    other.take(text(1), "web")
    assert one.take(text(2), "web") == other.take(text(2), "web") != []


def test_copies_and_near_copies_are_left_out_and_counted(text):
    found = gathering()
    assert found.take(text(1), "web")
    assert not found.take(text(1), "web")
    assert not found.take(text(1) + " and more", "law")
    assert found.repeats == 2


def test_an_unwanted_domain_is_dropped_and_empty_texts_are_counted(text):
    found = gathering(("web",))
    assert not found.take(text(1), "law")
    assert not found.take(" \n", "web")
    assert not found.take(text(2), None)
    assert (found.records, found.empty) == (3, 1)


def test_a_long_record_gives_a_few_excerpts(text):
    found = gathering(excerpts_per_record=3)
    assert len(found.take(text(1, 2000), "web")) == 3


def test_domains_that_are_not_named_are_those_that_occur(text):
    found = gathering(None)
    for number in range(10):
        found.take(text(number), ("a", "b")[number % 2])
    assert found.domains == ["a", "b"]
    assert not found.enough()  # others may come


def test_a_column_of_very_many_values_is_no_column_of_domains(text):
    found = gathering(None)
    for number in range(32):
        found.take(text(number), f"url{number}")
    with pytest.raises(BadInput, match=r"'kind' has more than 32 values \('url0', .*name those wanted in domains"):
        found.take(text(32), "url32")


def test_less_than_was_asked_for_says_how_much_there_is_and_what_to_change(text):
    found = gathering(("web",), excerpts_per_record=4)
    for number in range(9):
        found.take(text(number), "web")
    size = sum(len(text(number)) for number in range(9))
    assert refused(found) == (
        f"domain 'web' of dataset a/b has {size:,} bytes of new text in 9 records, fewer than the 20,000 asked for: "
        f"there is no more, raise excerpts_per_record (4), or ask for at most {size:,} (bytes_per_domain)"
    )


def test_a_read_that_max_records_ended_says_so(text):
    found = gathering(("web",), max_records=9)
    for number in range(9):
        found.take(text(number), "web")
    assert "raise max_records (9), or ask for at most" in refused(found)


def test_one_document_cannot_be_split(text):
    found = gathering(("web",), column=None)
    found.take(text(1, 9000), None)
    assert refused(found).startswith("dataset a/b is a single document: it stays whole, so train, dev and eval cannot")


def test_no_text_at_all_is_told_from_no_records(text):
    found = gathering()
    assert refused(found) == "dataset a/b is empty: it has no record"
    for _ in range(7):
        found.take("\n", "web")
    assert refused(found) == "dataset a/b: all 7 records that were read are empty texts"


def test_a_domain_that_never_came_names_those_that_did(text):
    found = gathering(("webb",))
    found.take(text(1), "web")
    assert "the corpus has no domain 'webb'; did you mean web? (allowed: web); 1 records were read" in refused(found)
