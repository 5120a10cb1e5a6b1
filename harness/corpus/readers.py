"""The registry of readers: kind of corpus → the module that reads it. A new kind is one file and one line here."""

from __future__ import annotations

import hashlib
from importlib import import_module

from harness.corpus import Sources
from harness.corpus.config import CorpusConfig
from harness.corpus.folder import files_of

READERS: dict[str, str] = {
    "installed": "harness.corpus.installed",
    "chess": "harness.corpus.chess",
    "files": "harness.corpus.files",
}


def sources_of(config: CorpusConfig) -> dict[str, Sources]:
    """Every domain the corpus offers, or only the wanted ones where finding out costs. Raises BadInput."""
    return import_module(READERS[config.kind]).sources(config)


def source_packages(config: CorpusConfig) -> tuple[str, ...]:
    """Distributions whose version decides the text (or, for the tokenizer, its tokens), in order of name."""
    return tuple(sorted({"tokenizers", *import_module(READERS[config.kind]).packages(config)}))


def contents_digest(config: CorpusConfig) -> str | None:
    """SHA-256 of the names and bytes of the files under `config.path`; None where there is no path.

    Versions of packages pin the other kinds of corpus; nothing but their bytes pins a person's own files.
    """
    if config.path is None:
        return None
    found = hashlib.sha256()
    for name, path in files_of(config.path).items():
        with path.open("rb") as file:
            found.update(f"{name}\x1f{hashlib.file_digest(file, 'sha256').hexdigest()}\x1e".encode())
    return found.hexdigest()
