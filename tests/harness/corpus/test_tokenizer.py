import json

import pytest
from transformers import PreTrainedTokenizerFast

from harness.corpus.tokenizer import as_pretrained, bytes_of_tokens, shown, train_tokenizer

TEXTS = [f"the naïve number {n} of the {'—' * (n % 5)}\n    thing" for n in range(200)]
ODD = ["", " leading", "tabs\t\tand\n\n\nlines  ", "日本語 🎉 \u0000", "é" * 50, "<|endoftext|> inside"]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, 300)


def test_ids_begin_with_end_of_text_and_the_vocabulary_has_its_size(tokenizer):
    assert tokenizer.token_to_id("<|endoftext|>") == 0
    assert tokenizer.get_vocab_size() == 300


@pytest.mark.parametrize("text", TEXTS[:3] + ODD)
def test_every_byte_is_covered_once_and_comes_back(tokenizer, text):
    tokenizer.encode_special_tokens = True
    ids = tokenizer.encode(text).ids
    assert bytes_of_tokens(tokenizer)[ids].sum() == len(text.encode())
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_training_twice_gives_the_same_file():
    assert train_tokenizer(TEXTS, 300).to_str() == train_tokenizer(TEXTS, 300).to_str()


def test_it_is_what_transformers_loads(tokenizer, tmp_path):
    as_pretrained(tokenizer).save_pretrained(tmp_path)
    loaded = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert loaded.eos_token_id == loaded.bos_token_id == 0
    assert loaded.decode(loaded(TEXTS[3])["input_ids"]) == TEXTS[3]
    assert json.loads((tmp_path / "tokenizer.json").read_text())["model"]["type"] == "BPE"


@pytest.mark.parametrize("text", TEXTS[:3] + ODD)
def test_the_saved_tokenizer_reads_every_text_as_it_was_packed(tokenizer, tmp_path, text):
    tokenizer.encode_special_tokens = True
    packed = tokenizer.encode(text).ids
    as_pretrained(tokenizer).save_pretrained(tmp_path)
    loaded = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert loaded(text)["input_ids"] == packed
    assert loaded.encode(text, add_special_tokens=False) == packed


def test_every_token_is_shown_by_a_name_of_its_own_and_parts_of_characters_as_bytes(tokenizer):
    pretrained = as_pretrained(tokenizer)
    names = [shown(pretrained, token) for token in range(len(pretrained))]
    assert len(set(names)) == len(names)
    assert not any("\ufffd" in name for name in names)
    assert names[0] == "<|endoftext|>"
    assert names[pretrained.convert_tokens_to_ids("\u0120")] == " "
    first_of_dash = pretrained.convert_tokens_to_ids("\u00e2")  # the name of byte 0xe2, with which "—" begins
    assert names[first_of_dash] == "\\xe2"
