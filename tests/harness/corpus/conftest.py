"""A small corpus of two domains, written by the tests themselves."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from harness.corpus.build import build, load
from harness.corpus.config import CorpusConfig
from harness.corpus.files import FilesCorpus
from harness.corpus.stored import Corpus

_SYLLABLES = [a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "é")]


def words(seed: int, count: int) -> str:
    """Made-up words with some order in them, so that there is something to compress."""
    chance = random.Random(seed)
    found = []
    for _ in range(count):
        found.append("".join(chance.choices(_SYLLABLES[: 20 + 5 * (len(found) % 4)], k=chance.randint(1, 3))))
    return " ".join(found)


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    for domain in ("apples", "pears"):
        (folder / domain).mkdir()
        for number in range(60):
            (folder / domain / f"{number}.txt").write_text(words(hash_free_seed(domain, number), 80))
    return folder


def hash_free_seed(domain: str, number: int) -> int:
    return number + 1000 * len(domain)


@pytest.fixture(scope="session")
def config(text_folder: Path) -> CorpusConfig:
    return FilesCorpus(
        path=text_folder,
        bytes_per_domain=20_000,
        vocab_size=400,
        sequence_length=32,
        shares=(0.6, 0.2, 0.2),
    )


@pytest.fixture(scope="session")
def corpus(config: CorpusConfig, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("corpus")
    build(config, folder)
    return load(folder)
