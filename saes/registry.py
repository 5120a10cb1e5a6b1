"""Names of dictionaries. A kind is one file that calls `register` with the class of its configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernels.registry import Registry

if TYPE_CHECKING:
    from saes.dictionary import EncoderDecoder
    from saes.training_dictionary import DictionaryConfig

DICTIONARIES: Registry[type[DictionaryConfig]] = Registry("dictionary", "saes", "harness.dictionaries")
# SAELens' architecture name of a saved file → the class that reads it; a class enters when its file is imported.
FORMATS: dict[str, type[EncoderDecoder]] = {}


def register(name: str, config_class: type[DictionaryConfig]) -> None:
    """Add a kind of dictionary under `name`. ValueError: `name` is taken."""
    DICTIONARIES.register(name, config_class)


def formats() -> dict[str, type[EncoderDecoder]]:
    """SAELens' architecture name → the class that reads it, of every kind but SAELens' own."""
    for kind in DICTIONARIES:
        if ":" not in kind:
            DICTIONARIES.named(kind)
    return FORMATS
