import json

import pytest

from harness.base.errors import BadInput
from harness.base.files import locked
from harness.corpus import SPLITS
from harness.corpus.hub import spool as module
from harness.corpus.hub.gathering import Demand
from harness.corpus.hub.recipes import Origin
from harness.corpus.hub.spool import Spool
from harness.corpus.hub.stream import Stream
from harness.corpus.select import split_of
from harness.store.clean import Cleaner

SHARES = (0.6, 0.2, 0.2)


def demand(**changed):
    settings = {
        "domains": ("web", "law"),
        "bytes_per_domain": 20_000,
        "max_document_bytes": 1024,
        "shares": SHARES,
        "seed": 0,
        "shuffle_buffer": 40,
        "excerpts_per_record": 8,
        "max_records": 5000,
    }
    return Demand(**{**settings, **changed})


def read(path, folder, column="kind", **changed):
    folder.mkdir(exist_ok=True)
    origin = Origin(path=path, domain_column=column).whole()
    found = Spool(folder, origin, "commit", demand(**changed)).read()
    return {domain: [document for source in sources for document in source.read()] for domain, sources in found.items()}


class Killed(BaseException):
    """As a signal is: nobody catches it."""


@pytest.fixture
def killed(monkeypatch):
    """Every read dies in the middle of its third block, with rows in hand."""

    def dies():
        taken = []

        class Dying(Stream):
            def take(self, count):
                rows = super().take(count)
                taken.append(len(rows))
                if len(taken) == 3:
                    raise Killed
                return rows

        monkeypatch.setattr(module, "Stream", Dying)
        return taken

    yield dies
    monkeypatch.undo()


@pytest.mark.parametrize("form", ["a.parquet", "a.jsonl"])
def test_a_killed_read_goes_on_and_takes_what_it_would_have_taken(tmp_path, rows, save, form, killed, monkeypatch):
    path = save(tmp_path / form, rows(400))
    whole = read(path, tmp_path / "whole")
    taken = killed()
    with pytest.raises(Killed):
        read(path, tmp_path / "again")
    assert sum(taken) == 120
    position = json.loads((tmp_path / "again/position.json").read_text())
    assert (position["rows"], position["finished"]) == (80, False)
    with (tmp_path / "again/documents.jsonl").open("ab") as file:
        file.write(b'[{"id": "half a li')  # killed while it wrote the block that no position counts
    monkeypatch.undo()
    seen = []

    class Counting(Stream):
        def take(self, count):
            seen.append(count)
            return super().take(count)

    monkeypatch.setattr(module, "Stream", Counting)
    assert read(path, tmp_path / "again") == whole
    blocks = json.loads((tmp_path / "whole/position.json").read_text())["rows"] / 40
    assert len(seen) == blocks - 2  # two are on disk


def test_a_finished_read_is_never_read_again(tmp_path, rows, save, monkeypatch):
    path = save(tmp_path / "a.jsonl", rows(400))
    whole = read(path, tmp_path / "s")
    monkeypatch.setattr(module, "Stream", None)
    assert read(path, tmp_path / "s") == whole


def test_a_read_ends_when_all_have_enough(tmp_path, rows, save):
    path = save(tmp_path / "a.jsonl", rows(2000))
    found = read(path, tmp_path / "s")
    assert json.loads((tmp_path / "s/position.json").read_text())["rows"] < 500
    for domain in ("web", "law"):
        for share, split in zip(SHARES, SPLITS, strict=True):
            size = sum(len(each.text) for each in found[domain] if split_of(each.source, SHARES) == split)
            assert 0 <= size - 1.1 * 20_000 * share < 1024


def test_a_position_that_cannot_be_used_is_said_and_the_read_begins_anew(tmp_path, rows, save, caplog):
    path = save(tmp_path / "a.jsonl", rows(400))
    whole = read(path, tmp_path / "s")
    place = tmp_path / "s/position.json"
    good = json.loads(place.read_text())
    damages = {
        "it is of datasets 1.0": json.dumps({**good, "datasets": "1.0", "finished": False}),
        "documents.jsonl is shorter than it says": json.dumps({**good, "lines": good["lines"] + 1}),
        "Expecting property name": "{",
    }
    for why, content in damages.items():
        place.write_text(content)
        caplog.clear()
        assert read(path, tmp_path / "s") == whole
        assert "is read again from its beginning" in caplog.text
        assert why in caplog.text


def test_the_seed_mixes_within_the_buffer_and_says_which_records_are_taken(tmp_path, rows, save):
    path = save(tmp_path / "a.jsonl", rows(2000), files=1)
    ids = []
    for number, changed in enumerate(({}, {"seed": 1}, {"seed": 1, "shuffle_buffer": 1000})):
        found = read(path, tmp_path / str(number), **changed)
        ids.append({document.id for document in found["web"]})
    assert ids[0] != ids[1] != ids[2]
    assert len(ids[1] & ids[2]) < 0.9 * len(ids[1])


def test_lines_become_documents_also_across_blocks(tmp_path, text):
    lines, articles = [], []
    for number in range(60):
        body = [
            f" = Article {number} = \n",
            "",
            " = = Section = = \n",
            *(f" {text(100 * number + k, 12)} \n" for k in range(8)),  # 11 rows, so that blocks of 40 cut articles
        ]
        articles.append("".join(line if line.endswith("\n") else line + "\n" for line in body))
        lines += body
    path = tmp_path / "wiki.jsonl"
    path.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    origin = Origin(recipe="wikitext", path=path).whole()
    (tmp_path / "s").mkdir()
    found = Spool(
        tmp_path / "s", origin, "", demand(domains=("wiki",), bytes_per_domain=30_000, max_document_bytes=4096)
    ).read()
    texts = {document.text for source in found["wiki"] for document in source.read()}
    assert len(texts) > 30
    assert texts <= {article.strip("\r\n") for article in articles}


def test_a_clean_frees_what_was_read_but_not_what_is_being_read(tmp_path, rows, save, store):
    origin = Origin(path=save(tmp_path / "a.jsonl", rows(400)), domain_column="kind").whole()
    module.read(origin, "commit", demand())
    (folder,) = (store / "hub").iterdir()
    with Cleaner(store, []) as cleaner:
        with locked(store / "locks" / f"hub-{folder.name}"):
            assert cleaner.find().leftovers == []
        found = cleaner.find()
        assert [each.path for each in found.leftovers] == [folder]
        cleaner.remove(found)
    assert not folder.exists()


def test_too_little_is_refused_without_reading_twice(tmp_path, rows, save, monkeypatch):
    path = save(tmp_path / "a.jsonl", rows(20))
    with pytest.raises(BadInput, match="fewer than the 20,000 asked for: there is no more"):
        read(path, tmp_path / "s")
    monkeypatch.setattr(module, "Stream", None)
    with pytest.raises(BadInput, match="fewer than the 20,000 asked for: there is no more"):
        read(path, tmp_path / "s")
