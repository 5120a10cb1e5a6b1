"""What `harness list` prints: the names an experiment may use, one line each.

Descriptions are read from the files, not from imported modules: torch and transformers take seconds to import.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from functools import partial

from harness.base.errors import BadInput
from harness.store.source import module_path
from kernels.registry import Registry, nearest
from saes import catalogue

SAES = "saes"


def lines(kind: str, text: str = "") -> list[str]:
    """One line a name: the name, and the first sentence of what it is. text: words that a line must have.

    Raises BadInput, with what is near, where no line has them.
    """
    words = text.casefold().split()
    entries = [
        (name, said) for name, said in KINDS[kind]() if all(word in f"{name} {said}".casefold() for word in words)
    ]
    if not entries:
        near = catalogue.near(text) if kind == SAES else nearest(text, [name for name, _ in KINDS[kind]()])
        raise BadInput(f"list {kind} {text!r}: none is called so; {near}")
    width = max(len(name) for name, _ in entries)
    found = [f"{name:{width}}  {said}" for name, said in entries]
    if kind == SAES and text in catalogue.releases():
        found += [f"  id={sae_id}" for sae_id in catalogue.releases()[text].ids]
    return found


def first_sentence(text: str) -> str:
    """Up to a full stop or question mark before a capital letter; that of "et al." or "e.g." ends none."""
    text = " ".join(text.split())
    for stop in re.finditer(r"[.?](?= [A-Z`])", text):
        if not re.search(r"\b(al|e\.g|i\.e|cf|vs)$", text[: stop.start()]):
            return text[: stop.end()].rstrip(".")
    return text.rstrip(".")


def _systems() -> list[tuple[str, str]]:
    found = [(name, f"subject: {text}") for name, text in _registered("models", "harness.systems")]
    for name, text in _registered("saes", "harness.dictionaries"):
        # SAELens' own share a file, which says nothing of any.
        theirs = "SAELens' own architecture, trained on the same activations"
        found.append((f"SUBJECT+{name}", f"dictionary: {theirs if name.startswith('saelens:') else text}"))
    found.append(("SUBJECT+pretrained", f"dictionary: {_described('saes.pretrained')}"))
    return found


def _published() -> list[tuple[str, str]]:
    """Releases of SAELens' list, for rows `hf:MODEL+pretrained[release=NAME,id=ID]`."""
    try:
        listed = catalogue.releases().values()
    except ValueError as error:
        raise BadInput(f"list {SAES}: {error}") from None
    return [(each.name, f"{each.model}, {each.hook}, {len(each.ids)} of them") for each in listed]


def _experiments() -> list[tuple[str, str]]:
    from harness.experiment.schema import experiment_names, load

    return [(name, load(name).description) for name in experiment_names()]


def _registered(package: str, group: str) -> list[tuple[str, str]]:
    """The names of a registry that is not imported for it, with what their files say."""
    return [(name, _described(module)) for name, module in Registry("", package, group).modules().items()]


def _described(module: str) -> str:
    path = module_path(module)
    if path is None:
        return f"cannot be used (there is no module {module})"
    return first_sentence(ast.get_docstring(ast.parse(path.read_bytes())) or "")


KINDS: dict[str, Callable[[], list[tuple[str, str]]]] = {
    "systems": _systems,
    "metrics": partial(_registered, "harness.metrics", "harness.metrics"),
    "corpora": partial(_registered, "harness.corpus", "harness.corpora"),
    "judges": partial(_registered, "harness.metrics.autointerp", "harness.judges"),
    "experiments": _experiments,
    SAES: _published,
}
