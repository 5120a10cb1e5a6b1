import json
import subprocess
import sys

import pytest

from harness.base.errors import BadInput
from harness.base.settings import validated
from harness.corpus import SPLITS
from harness.corpus.build import build, load
from harness.corpus.config import packages_of
from harness.corpus.duplicates import OVERLAP, Seen
from harness.corpus.hub import HubCorpus
from harness.corpus.hub.recipes import Origin
from harness.run.stages.corpus import stage

SIZES = {"bytes_per_domain": 20_000, "max_document_bytes": 1024, "vocab_size": 400, "sequence_length": 32}


def corpus(**settings):
    return HubCorpus(**{**SIZES, "shares": (0.6, 0.2, 0.2), **settings})


def refused(config, folder):
    with pytest.raises(BadInput) as caught:
        build(config, folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("form", ["a.parquet", "a.jsonl"])
def test_a_column_says_the_domains(tmp_path, rows, save, form):
    path = save(tmp_path / form, rows(400))
    info = build(corpus(path=path, domain_column="kind"), tmp_path / "built")
    assert set(info.domains) == {"web", "law"}
    for share, split in zip((0.6, 0.2, 0.2), SPLITS, strict=True):
        for size in info.sizes[split].values():
            assert 0 <= size.bytes - 20_000 * share < 1024
    assert info.packages.keys() == {"datasets", "tokenizers"}


def test_parquet_and_jsonl_of_the_same_records_give_the_same_text(tmp_path, rows, save):
    infos = [
        build(corpus(path=save(tmp_path / form, rows(300)), domain_column="kind"), tmp_path / f"{form} built")
        for form in ("a.parquet", "a.jsonl")
    ]
    assert infos[0].content_hash == infos[1].content_hash


def test_each_part_is_a_domain(tmp_path, rows, save):
    parts = {
        "first": Origin(path=save(tmp_path / "a.jsonl", rows(200))),
        "second": Origin(path=save(tmp_path / "b.parquet", rows(400)[200:])),
    }
    assert build(corpus(parts=parts), tmp_path / "built").domains == ("first", "second")
    assert corpus(parts=parts, domains=("second",)).sources().keys() == {"second"}
    message = refused(corpus(parts=parts, domains=("secnd",)), tmp_path / "c")
    assert message == "the corpus has no domain 'secnd'; did you mean second? (allowed: first, second)"


def test_a_dataset_without_a_domain_column_is_one_domain(tmp_path, rows, save):
    config = corpus(path=save(tmp_path / "poems.jsonl", rows(400)))
    assert list(config.sources()) == ["poems.jsonl"]


def test_what_is_held_out_repeats_nothing_of_train(tmp_path, rows, save):
    found = rows(300)
    copies = []
    for row in found:
        words = row["text"].split()
        words[row["id"] % 40] = "edited"
        copies.append({**row, "text": " ".join(words)})
    mixed = [row for pair in zip(found, copies, strict=True) for row in pair]
    build(corpus(path=save(tmp_path / "a.jsonl", mixed), domain_column="kind"), tmp_path / "built")
    table, seen = load(tmp_path / "built").documents, Seen()
    sides = list(zip(table, table.split, strict=True))
    for document, side in sides:
        if side == "train":
            seen.admit(document.text)
    held = [document for document, side in sides if side != "train"]
    assert len(held) > 20
    assert all(seen.share(seen.runs(document.text)) < OVERLAP for document in held)


def test_the_same_build_twice_and_another_tokenizer_reads_once(tmp_path, rows, save, store):
    path = save(tmp_path / "a.jsonl", rows(400))
    infos = [
        build(corpus(path=path, **changed), tmp_path / str(n))
        for n, changed in enumerate(({}, {}, {"vocab_size": 300}))
    ]
    assert infos[0] == infos[1]
    assert infos[0].content_hash == infos[2].content_hash
    assert len(list((store / "hub").iterdir())) == 1


def test_the_key_moves_with_a_byte_of_local_files_and_with_what_is_read(tmp_path, rows, save):
    path = save(tmp_path / "a.jsonl", rows(30))
    keys = {stage(corpus(path=path)).key, stage(corpus(path=path, domain_column="kind")).key}
    (path / "0.jsonl").write_text((path / "0.jsonl").read_text().replace("x0", "X0", 1))
    keys.add(stage(corpus(path=path)).key)
    assert len(keys) == 3


def test_a_commit_is_the_key_and_needs_no_network_to_be_one():
    config = corpus(dataset="a/b", revision="0" * 40)
    assert config.contents() == f"dataset a/b@{'0' * 40}"
    assert packages_of(config) == ("datasets", "tokenizers")


def test_too_little_text_is_refused_before_anything_is_written(tmp_path, text):
    def one(name, texts, **changed):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps({"text": each}) + "\n" for each in texts))
        return corpus(path=path, **changed)

    assert "single document" in refused(one("one", [text(1, 3000)]), tmp_path / "c")
    assert "all 3 records that were read are empty texts" in refused(one("none", ["", " ", "\n"]), tmp_path / "c")
    assert "fewer than the 20,000 asked for" in refused(one("few", [text(n) for n in range(9)]), tmp_path / "c")
    assert "none falls to" in refused(
        one("two", [text(n, 2500) for n in range(2)], bytes_per_domain=5000), tmp_path / "c"
    )
    enough = one("enough", [text(n) for n in range(400)]).model_copy(update={"sequence_length": 90_000})
    assert "less than one sequence of 90000; raise bytes_per_domain or lower sequence_length" in refused(
        enough, tmp_path / "c"
    )
    assert not (tmp_path / "c").exists()


def test_a_misspelt_domain_names_the_nearest(tmp_path, rows, save):
    config = corpus(path=save(tmp_path / "a.jsonl", rows(90)), domain_column="kind", domains=("webb",))
    assert "has no domain 'webb'; did you mean web? (allowed: law, web)" in refused(config, tmp_path / "c")


def test_checking_a_configuration_imports_no_datasets():
    code = (
        "import sys; from harness.corpus.config import CORPORA; from harness.run.stages.corpus import stage;"
        "CORPORA['hub'](recipe='tinystories', revision='0' * 40).contents();"
        "assert not {'datasets', 'huggingface_hub'} & set(sys.modules), 'imported'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_a_kind_in_an_experiment_is_read_strictly():
    with pytest.raises(BadInput, match=r"corpus\.shuffle_bufer: unknown key; did you mean shuffle_buffer"):
        validated(HubCorpus, {"kind": "hub", "recipe": "pile", "shuffle_bufer": 3}, where="corpus")
