"""What `harness list` prints: the names an experiment may use, one line each."""

from __future__ import annotations

import inspect
from collections.abc import Callable


def lines(kind: str) -> list[str]:
    """One line a name: the name, and the first sentence of what it is."""
    entries = KINDS[kind]()
    width = max(len(name) for name, _ in entries)
    return [f"{name:{width}}  {text}" for name, text in entries]


def _systems() -> list[tuple[str, str]]:
    import models
    import saes
    from harness.systems import PRETRAINED, dictionary_names, subject_names
    from saes.pretrained import Pretrained

    subjects = [
        (name, "subject: " + _first_sentence(inspect.getmodule(models.architecture(name).model_class)))
        for name in subject_names()
    ]
    dictionaries = [
        (f"SUBJECT+{name}", "dictionary: " + _first_sentence(inspect.getmodule(saes.config_class(name))))
        for name in dictionary_names()
        if not name.startswith("saelens:") and name != PRETRAINED
    ]
    ready = [(f"SUBJECT+{PRETRAINED}", "dictionary: " + _first_sentence(inspect.getmodule(Pretrained)))]
    theirs = [  # not looked into: importing SAELens takes seconds
        (f"SUBJECT+{name}", "dictionary: SAELens' own architecture, trained on the same activations")
        for name in dictionary_names()
        if name.startswith("saelens:")
    ]
    return subjects + dictionaries + ready + theirs


def _metrics() -> list[tuple[str, str]]:
    from harness import metrics

    return [(name, _first_sentence(metrics.module_of(name))) for name in metrics.names()]


def _corpora() -> list[tuple[str, str]]:
    from importlib import import_module

    from harness.corpus.readers import READERS

    return [(name, _first_sentence(import_module(module))) for name, module in READERS.items()]


def _experiments() -> list[tuple[str, str]]:
    from harness.config import experiment_names, load

    return [(name, load(name).description) for name in experiment_names()]


def _first_sentence(thing: object) -> str:
    text = " ".join((inspect.getdoc(thing) or "").split())
    return text.split(". ")[0].rstrip(".")


KINDS: dict[str, Callable[[], list[tuple[str, str]]]] = {
    "systems": _systems,
    "metrics": _metrics,
    "corpora": _corpora,
    "experiments": _experiments,
}
