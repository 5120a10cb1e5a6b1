import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.base.errors import BadInput
from harness.corpus import quiet
from harness.corpus.config import packages_of
from harness.corpus.files import FilesCorpus
from harness.corpus.folder import files_of
from harness.corpus.installed import InstalledCorpus
from harness.corpus.select import select


def read_all(folder, **options):
    sources = FilesCorpus(path=folder, **options).sources()
    return {
        domain: {document.source: document.text for source in found for document in source.read()}
        for domain, found in sources.items()
    }


def test_subfolders_are_domains_and_records_are_sources(tmp_path):
    for domain in ("law", "med", ".hidden"):
        (tmp_path / domain / "deep").mkdir(parents=True)
    (tmp_path / "law" / "deep" / "a.txt").write_bytes(b"\xef\xbb\xbfone\n")
    (tmp_path / "law" / "b.md").write_text("two")
    (tmp_path / ".hidden" / "c.txt").write_text("no")
    # U+2028 breaks lines for str.splitlines and not for JSON.
    (tmp_path / "med" / "r.jsonl").write_text('{"text": "th\u2028ree", "x": 1}\n\n{"text": "four"}\n')
    pq.write_table(pa.table({"text": ["five", "six"], "y": [1, 2]}), tmp_path / "med" / "p.parquet")
    assert read_all(tmp_path) == {
        "law": {"law/deep/a.txt": "one", "law/b.md": "two"},
        "med": {
            "med/r.jsonl:1": "th\u2028ree",
            "med/r.jsonl:3": "four",
            "med/p.parquet:1": "five",
            "med/p.parquet:2": "six",
        },
    }


def test_a_folder_without_subfolders_or_a_single_file_is_one_domain(tmp_path):
    (tmp_path / "poems.jsonl").write_text('{"text": "a"}')
    assert list(read_all(tmp_path)) == [tmp_path.name]
    assert list(read_all(tmp_path / "poems.jsonl")) == ["poems"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"abc\xe9def", r"a\.txt: not UTF-8: byte 0xe9 at offset 3"),
        ("a.png", b"\x89PNG\r\n\x1a\n\0\0", r"a\.png: a binary file \(a zero byte at offset 8\)"),
        ("a.jsonl", b'{"text": "x"}\n{"text": ', r"a\.jsonl:2: not JSON: Expecting value at character 10"),
        ("a.jsonl", b'{"body": "x", "id": 1}', r"a\.jsonl:1: no column 'text'; the columns are: 'body', 'id'"),
        ("a.jsonl", b'{"text": 3}', r"a\.jsonl:1: column 'text' is a int, not a string"),
        ("a.jsonl", b'{"text": "\\ud800"}', r"a\.jsonl:1: half a character"),
        ("a.jsonl", b"[1]", r"a\.jsonl:1: a list, where an object with 'text' is wanted"),
        ("a.parquet", b"PAR1 and no more", r"a\.parquet: not a readable parquet file"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_in_one_line(tmp_path, name, content, message):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / name).write_bytes(content)
    with pytest.raises(BadInput, match=message) as caught:
        read_all(tmp_path)
    assert "\n" not in str(caught.value)


def test_parquet_without_a_column_of_texts_is_refused(tmp_path):
    pq.write_table(pa.table({"body": ["x"]}), tmp_path / "a.parquet")
    with pytest.raises(BadInput, match="no column 'text'; the columns are: 'body'"):
        read_all(tmp_path)
    pq.write_table(pa.table({"text": [1]}), tmp_path / "a.parquet")
    with pytest.raises(BadInput, match="column 'text' is of type int64, not string"):
        read_all(tmp_path)
    pq.write_table(pa.table({"text": ["x", None]}), tmp_path / "a.parquet")
    with pytest.raises(BadInput, match="row 2: column 'text' is null"):
        read_all(tmp_path)


def test_a_path_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(BadInput, match=f"a/b does not exist .what does: {tmp_path}"):
        read_all(tmp_path / "a" / "b")


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(BadInput, match="the corpus is empty: no file in"):
        read_all(tmp_path)


def test_an_unwanted_domain_is_not_read(tmp_path):
    for domain, content in (("good", b'{"text": "x"}'), ("bad", b"{")):
        (tmp_path / domain).mkdir()
        (tmp_path / domain / "a.jsonl").write_bytes(content)
    assert read_all(tmp_path, domains=("good",))["good"] == {"good/a.jsonl:1": "x"}


def test_a_missing_domain_names_those_there_are_and_the_nearest(tmp_path):
    (tmp_path / "prose").mkdir()
    (tmp_path / "prose" / "a.jsonl").write_text(json.dumps({"text": "x"}))
    config = FilesCorpus(path=tmp_path, domains=("proze",))
    with pytest.raises(BadInput, match=r"no domain 'proze'; did you mean prose\? \(allowed: prose\)"):
        select(config, config.sources(), quiet)


def test_the_digest_moves_with_a_byte_and_with_a_name(tmp_path):
    config = FilesCorpus(path=tmp_path)
    (tmp_path / "a.txt").write_text("one")
    first = config.contents()
    assert config.contents() == first
    (tmp_path / "a.txt").write_text("One")
    assert config.contents() != first
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "a.txt").rename(tmp_path / "b.txt")
    assert config.contents() != first
    assert InstalledCorpus().contents() is None
    assert packages_of(config) == ("tokenizers",)


def test_linked_folders_and_files_are_read_and_a_loop_is_left_out_with_a_word(tmp_path, caplog):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "a.txt").write_text("one")
    corpus = tmp_path / "corpus"
    (corpus / "own").mkdir(parents=True)
    (corpus / "own/b.txt").write_text("two")
    (corpus / "linked").symlink_to(elsewhere)
    (corpus / "own/c.txt").symlink_to(elsewhere / "a.txt")
    (corpus / "own/round").symlink_to(corpus)
    (corpus / "own/gone").symlink_to(tmp_path / "nothing")
    assert list(files_of(corpus)) == ["linked/a.txt", "own/b.txt", "own/c.txt"]
    assert len(caplog.messages) == 2
    assert any("round" in said for said in caplog.messages)
    assert any("gone" in said for said in caplog.messages)


def test_a_file_name_that_is_not_utf8_is_named(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.txt")).write_text("x")
    with pytest.raises(BadInput, match=r"caf.xe9.txt.* is not UTF-8"):
        files_of(tmp_path)


def test_json_that_is_nested_too_deep_is_named_by_file_and_line(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "fine"}\n' + '{"text": ' + "[" * 100_000 + "]" * 100_000 + "}\n")
    with pytest.raises(BadInput, match=r"a\.jsonl:2: JSON nested too deep"):
        read_all(tmp_path)
