"""Byte-level BPE, trained on the training split alone, or the tokenizer of a model from elsewhere.

Of every token we need how many bytes of text it covers, so that bits per byte mean the same in any tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness.base.errors import BadInput
from harness.corpus import END_OF_TEXT
from kernels.registry import nearest

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer
    from transformers import PreTrainedTokenizerFast

    from harness.corpus.config import TokenizerFrom


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


@dataclass(frozen=True)
class Reader:
    """Text into tokens. begin: the token that begins a document; everywhere: whether it also begins every sequence, as
    models from elsewhere expect. covers: of the tokens of a text, how many of its bytes each covers."""

    tokenizer: Tokenizer
    begin: int
    everywhere: bool
    covers: Callable[[Encoding, str], np.ndarray]

    def encoded(self, texts: list[str]) -> list[Encoding]:
        if self.everywhere:
            return self.tokenizer.encode_batch(texts, add_special_tokens=False)
        return self.tokenizer.encode_batch_fast(texts)  # does not say where tokens lie


def own_reader(tokenizer: Tokenizer) -> Reader:
    tokenizer.encode_special_tokens = True  # "<|endoftext|>" inside a text is text
    bytes_of = bytes_of_tokens(tokenizer)
    begin = tokenizer.get_vocab()[END_OF_TEXT]
    return Reader(tokenizer, begin, False, lambda encoded, _text: bytes_of[encoded.ids])


def read_pretrained(source: TokenizerFrom) -> PreTrainedTokenizerFast:
    """The tokenizer of a model. Its end of text becomes the token that begins a document, which is the only one that is
    no text here: beginning of text where it has one. Raises BadInput."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    folder, more = source.folder, {"gguf_file": source.gguf_file} if source.gguf_file else {}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, **more)
    except Exception as error:  # of many classes, also bare ones from the Rust side
        reason = " ".join(str(error).split())[:120]
        raise BadInput(f"{folder} has no tokenizer that can be read ({reason})") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise BadInput(
            f"{folder}: its tokenizer has no fast form (tokenizer.json), which says where tokens lie in a text"
        )
    begin = source.begin or tokenizer.bos_token or tokenizer.eos_token
    if begin is None:
        raise BadInput(
            f"{folder}: its tokenizer has no special token to begin a document with (bos_token or eos_token)"
        )
    if str(begin) not in tokenizer.get_vocab():
        raise BadInput(f"{folder}: begin = {begin!r}: {nearest(str(begin), tokenizer.all_special_tokens)}")
    tokenizer.eos_token = begin
    return tokenizer


def pretrained_reader(tokenizer: PreTrainedTokenizerFast) -> Reader:
    inner = tokenizer.backend_tokenizer
    return Reader(inner, tokenizer.get_vocab()[str(tokenizer.eos_token)], True, _covered)


def _covered(encoded: Encoding, text: str) -> np.ndarray:
    """By where the tokens end. Bytes that no token claims, as spaces that a tokenizer drops, are the next one's, and at
    the end the last one's: they add up to the text."""
    code_points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    width = 1 + (code_points >= 0x80) + (code_points >= 0x800) + (code_points >= 0x10000)
    up_to = np.concatenate([[0], np.cumsum(width)])
    ends = np.maximum.accumulate(np.array([end for _, end in encoded.offsets], dtype=np.int64))
    if len(ends):
        ends[-1] = len(code_points)
    return np.diff(up_to[ends], prepend=0).astype(np.uint16)


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
