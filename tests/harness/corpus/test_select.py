import logging
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from harness.base.errors import BadInput
from harness.corpus import SPLITS, Document, Source, quiet
from harness.corpus.duplicates import OVERLAP, Seen
from harness.corpus.files import FilesCorpus
from harness.corpus.select import select, split_of

SHARES = (0.6, 0.2, 0.2)


def source(domain, number, texts):
    name = f"{domain}/{number}"
    documents = [Document(f"{name}#{k}", domain, text, name) for k, text in enumerate(texts)]
    return Source(name, partial(list, documents))


def text(domain, number, count=60):
    return " ".join(f"{domain}{number}x{k}" for k in range(count))


def some(domain, n_sources, count=60):
    return [source(domain, number, [text(domain, number, count)]) for number in range(n_sources)]


def chosen(sources, **options):
    return select(FilesCorpus(path=Path("unread"), shares=SHARES, domains=None, **options), sources, quiet)


def test_a_split_depends_on_the_name_alone_and_keeps_its_shares():
    names = [f"file{number}" for number in range(10_000)]
    sides = [split_of(name, (0.86, 0.04, 0.10)) for name in names]
    assert sides.count("train") == pytest.approx(8600, abs=150)
    assert sides.count("dev") == pytest.approx(400, abs=80)
    assert split_of("scipy/optimize/_minimize.py", (0.86, 0.04, 0.10)) == "train"  # fixed for good


def test_domains_and_splits_get_the_bytes_they_should():
    selection = chosen({"a": some("a", 400), "b": some("b", 400, count=30)}, bytes_per_domain=40_000)
    for domain in ("a", "b"):
        for split, share in zip(SPLITS, SHARES, strict=True):
            size = sum(len(each.text) for each in selection.documents[split] if each.domain == domain)
            assert 0 <= size - 40_000 * share < 600


def test_no_source_lies_on_two_sides():
    sources = {
        "code": [source("f", number, [text("code", f"{number}y{k}") for k in range(4)]) for number in range(60)],
        "docs": [source("f", number, [text("docs", f"{number}y{k}") for k in range(4)]) for number in range(60)],
    }
    for found in sources.values():
        for each in found:
            assert len(each.read()) == 4
    selection = chosen(relabelled(sources), bytes_per_domain=50_000)
    sides = {}
    for split in SPLITS:
        for document in selection.documents[split]:
            assert sides.setdefault(document.source, split) == split


def relabelled(sources):
    """Both domains share their files, and each document says which domain it is of."""

    def read(domain, each):
        return [Document(f"{domain}:{d.id}", domain, d.text, d.source) for d in each.read()]

    return {
        domain: [Source(each.name, partial(read, domain, each)) for each in found] for domain, found in sources.items()
    }


def test_every_source_gives_one_document_before_any_gives_two():
    sources = [source("a", number, [text("a", f"{number}y{k}", 20) for k in range(10)]) for number in range(100)]
    of_one = len(sources[0].read()[0].text)
    once = chosen({"a": sources}, bytes_per_domain=90 * of_one).documents["train"]
    assert len({document.source for document in once}) == len(once) > 40
    twice = chosen({"a": sources}, bytes_per_domain=150 * of_one).documents["train"]
    counts = Counter(document.source for document in twice)
    assert set(counts.values()) == {1, 2}
    assert len(counts) == sum(split_of(each.name, SHARES) == "train" for each in sources)


def test_near_duplicates_planted_across_splits_are_left_out():
    sources = some("a", 300)
    copies = []
    for number in range(300):
        words = text("a", number).split()
        words[number % 40] = "edited"
        copies.append(source("copy", number, [" ".join(words)]))
    planted = [Source(each.name, partial(as_domain, each, "a")) for each in copies]
    across = sum(split_of(a.name, SHARES) != split_of(b.name, SHARES) for a, b in zip(sources, copies, strict=True))
    assert across > 50
    selection = chosen({"a": sources + planted}, bytes_per_domain=10**6)
    assert selection.repeats["a"] == 300
    seen = Seen()
    for document in selection.documents["train"]:
        seen.admit(document.text)
    for split in ("dev", "eval"):
        for document in selection.documents[split]:
            assert seen.share(seen.runs(document.text)) < OVERLAP


def as_domain(each, domain):
    return [Document(d.id, domain, d.text, d.source) for d in each.read()]


def test_a_source_that_is_not_needed_is_not_read():
    read = []

    def reading(each):
        read.append(each.name)
        return each.read()

    sources = [Source(each.name, partial(reading, each)) for each in some("a", 1000)]
    chosen({"a": sources}, bytes_per_domain=20_000)
    assert len(read) < 80


def test_the_order_mixes_domains_and_moves_with_the_seed():
    sources = {"a": some("a", 100), "b": some("b", 100)}
    orders = [chosen(sources, seed=seed, bytes_per_domain=10**6).documents["train"] for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert {document.id for document in orders[0]} == {document.id for document in orders[2]}
    changes = sum(a.domain != b.domain for a, b in zip(orders[0], orders[0][1:], strict=False))
    assert changes > len(orders[0]) / 4


def test_a_short_domain_is_said(caplog):
    with caplog.at_level(logging.WARNING):
        chosen({"a": some("a", 100)}, bytes_per_domain=10**6)
    assert "domain a has" in caplog.text


def test_empty_and_too_small_domains_are_refused():
    with pytest.raises(BadInput, match="the corpus is empty"):
        chosen({"a": [], "b": []})
    with pytest.raises(BadInput, match="the corpus is empty"):
        chosen({})
    with pytest.raises(BadInput, match="domain 'b' is empty; these have text: a"):
        chosen({"a": some("a", 100), "b": []})
    with pytest.raises(BadInput, match=r"domain 'b' is too small to split: 1 documents .*none falls to"):
        chosen({"a": some("a", 100), "b": some("b", 1)})


def test_progress_reaches_its_total():
    calls = []
    select(
        FilesCorpus(path=Path("unread"), shares=SHARES, bytes_per_domain=20_000),
        {"a": some("a", 200)},
        lambda done, total, unit: calls.append((done, total, unit)),
    )
    assert [done for done, _, _ in calls] == sorted(done for done, _, _ in calls)
    assert calls[-1] == (20_000, 20_000, "bytes read")
