import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.compression import compr

from harness.base.errors import BadInput
from harness.corpus.hub.recipes import Origin
from harness.corpus.hub.stream import Stream


def stream(path, seed=0, position=None, **settings):
    return Stream(Origin(path=path, **settings).whole(), "", seed, position)


def refused(path, **settings):
    with pytest.raises(BadInput) as caught:
        stream(path, **settings).take(10)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("form", ["a.parquet", "a.jsonl"])
@pytest.mark.parametrize("columns", [{}, {"domain_column": "kind"}])
def test_a_stream_taken_up_again_gives_what_was_still_to_come(tmp_path, rows, save, form, columns):
    path = save(tmp_path / form, rows(150))
    whole = stream(path, **columns).take(1000)
    assert sorted(text for text, _ in whole) == sorted(row["text"] for row in rows(150))
    for count in (49, 120):
        first = stream(path, **columns)
        head, position = first.take(count), json.loads(json.dumps(first.position()))
        assert head + stream(path, position=position, **columns).take(1000) == whole


def test_files_come_in_an_order_of_the_seed(tmp_path, rows, save):
    path = save(tmp_path / "a.jsonl", rows(80), files=8)
    orders = [stream(path, seed=seed).take(1000) for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2])


def test_the_domain_may_lie_inside_a_column(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"text": "x", "meta": {"pile_set_name": "ArXiv"}}\n{"text": "y", "meta": {"pile_set_name": null}}\n'
    )
    assert stream(path, recipe="pile").take(9) == [("x", "ArXiv"), ("y", None)]


def test_of_parquet_nothing_is_read_but_the_columns_asked_for(tmp_path, rows, save):
    opened = stream(save(tmp_path / "a.parquet", rows(9)), domain_column="kind")
    assert list(opened._rows.features) == ["text", "kind"]


def test_null_is_no_text(tmp_path):
    pq.write_table(pa.table({"text": ["x", None]}), tmp_path / "a.parquet")
    assert [text for text, _ in stream(tmp_path / "a.parquet").take(9)] == ["x", ""]


def test_a_missing_column_names_those_there_are_and_the_nearest(tmp_path, rows, save):
    for form in ("a.parquet", "a.jsonl"):
        path = save(tmp_path / form, rows(9))
        message = refused(path, text_column="texts")
        assert (
            "has no column 'texts' (text_column); did you mean text? the columns are: 'id', 'text', 'kind'" in message
        )
        assert "no column 'kinds' (domain_column); did you mean kind?" in refused(path, domain_column="kinds")
    (tmp_path / "c.jsonl").write_text('{"text": "x", "meta": {"set": "a"}}\n')
    message = refused(tmp_path / "c.jsonl", domain_column="meta.name")
    assert "no column 'meta.name' (domain_column); did you mean meta.set? the columns are: 'meta.set'" in message
    assert "domain_column 'meta' is of type dict, no name; inside: 'meta.set'" in refused(
        tmp_path / "c.jsonl", domain_column="meta"
    )


def test_a_column_that_is_no_text_names_its_type_and_the_columns_that_are(tmp_path, rows, save):
    message = refused(save(tmp_path / "a.parquet", rows(9)), text_column="id", domain_column="kind")
    assert "column 'id' is of type int, not text; columns of text: 'kind'" in message


def test_local_files_that_cannot_be_read_are_named(tmp_path):
    assert "a/b does not exist (what does: " in refused(tmp_path / "a" / "b")
    (tmp_path / "a.txt").write_text("x")
    assert "no .parquet or .jsonl file in " in refused(tmp_path)
    assert "there is a.txt (other texts: corpus.kind=files)" in refused(tmp_path)
    (tmp_path / "b.jsonl").write_text('{"text": "x"}\n')
    assert "local files have the split train alone, not 'test'" in refused(tmp_path, split="test")
    (tmp_path / "c.parquet").write_bytes(b"PAR1 and no more")
    assert "holds parquet and jsonl (b.jsonl, c.parquet); give one of them" in refused(tmp_path)
    assert "c.parquet cannot be read: " in refused(tmp_path / "c.parquet")
    (tmp_path / "d.jsonl").write_text('{"text": "x"\n')
    assert "d.jsonl cannot be read: " in refused(tmp_path / "d.jsonl")
    (tmp_path / "e.jsonl").write_text('{"text": "a\\ud800b"}\n')  # half a character
    assert "e.jsonl cannot be read: " in refused(tmp_path / "e.jsonl")


@pytest.mark.skipif("zstd" in compr, reason="zstandard is installed")
def test_what_unpacks_a_file_and_is_not_installed_is_named(tmp_path):
    (tmp_path / "a.jsonl.zst").write_bytes(b"")
    message = refused(tmp_path / "a.jsonl.zst")
    assert message.endswith("a.jsonl.zst is packed with zstd, which is not installed: pip install zstandard")
