"""Byte-level BPE, trained on the training split alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from harness.corpus import END_OF_TEXT

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """At most `vocab_size` tokens: end of text (id 0), the 256 bytes, merges. The same texts give the same file.

    No normaliser and no prefix space: decoding gives back every byte. Words are cut as in GPT-2.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def as_pretrained(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """As transformers wants it, to be saved beside a model."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        clean_up_tokenization_spaces=False,
        split_special_tokens=True,  # "<|endoftext|>" inside a text is text here too, as in packing
    )


def bytes_of_tokens(tokenizer: Tokenizer) -> np.ndarray:
    """How many UTF-8 bytes each token covers; 0 for end of text. `[vocabulary]` uint16.

    In byte-level BPE a token's name has one character a byte, so these add up to the text exactly, also where a token
    ends inside a character.
    """
    names = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    return np.array([0 if name == END_OF_TEXT else len(name) for name, _ in names], dtype=np.uint16)


def shown(tokenizer: PreTrainedTokenizerFast, token: int) -> str:
    """A token as a person can tell it from others: its text; bytes that are no whole character as `\\xNN`.

    Decoding shows all of those as one and the same replacement character.
    """
    name = tokenizer.convert_ids_to_tokens(token)
    if token in tokenizer.all_special_ids or any(character not in _BYTES for character in name):
        return str(tokenizer.decode([token]))
    return bytes(_BYTES[character] for character in name).decode("utf-8", "backslashreplace")


def _byte_of_character() -> dict[str, int]:
    """GPT-2's byte-level names: printable bytes of Latin-1 stand for themselves, the others for 256 and following."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


_BYTES = _byte_of_character()
