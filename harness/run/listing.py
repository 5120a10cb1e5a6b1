"""What `harness list` prints: the names an experiment may use, one line each.

Descriptions are read from the files, not from imported modules: torch and transformers take seconds to import.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points

from harness.base import plugins
from harness.base.files import ROOT
from harness.store.source import module_path


def lines(kind: str) -> list[str]:
    """One line a name: the name, and the first sentence of what it is."""
    entries = KINDS[kind]()
    width = max(len(name) for name, _ in entries)
    return [f"{name:{width}}  {text}" for name, text in entries]


def first_sentence(text: str) -> str:
    """Up to a full stop before a capital letter; that of "et al." or "e.g." ends none."""
    text = " ".join(text.split())
    for stop in re.finditer(r"\.(?= [A-Z`])", text):
        if not re.search(r"\b(al|e\.g|i\.e|cf|vs)$", text[: stop.start()]):
            return text[: stop.start()]
    return text.rstrip(".")


def _systems() -> list[tuple[str, str]]:
    import saes

    found = list(_subjects())
    for name, place in saes.DICTIONARIES.items():
        # SAELens' own are not looked into: there is one file for all of them.
        text = (
            "SAELens' own architecture, trained on the same activations"
            if name.startswith("saelens:")
            else _described(place.partition(":")[0])
        )
        found.append((f"SUBJECT+{name}", f"dictionary: {text}"))
    found.append(("SUBJECT+pretrained", f"dictionary: {_described('saes.pretrained')}"))
    return found


def _subjects() -> Iterator[tuple[str, str]]:
    """The names that files of `models` register, then those that other packages add (which have to be imported)."""
    known = set()
    for file in sorted((ROOT / "models").glob("*.py")):
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "register" and node.args:
                name = node.args[0]
                if isinstance(name, ast.Constant) and isinstance(name.value, str):
                    known.add(name.value)
                    yield name.value, f"subject: {_described(f'models.{file.stem}')}"
    if entry_points(group="harness.systems"):
        import models

        plugins.load_all("harness.systems")
        for name, registered in models.ARCHITECTURES.items():
            if name not in known:
                yield name, f"subject: {_described(registered.model_class.__module__)}"


def _metrics() -> list[tuple[str, str]]:
    from harness import metrics

    return [(name, _described(module)) for name, module in metrics.names().items()]


def _corpora() -> list[tuple[str, str]]:
    from harness.corpus.readers import READERS

    return [(name, _described(module)) for name, module in READERS.items()]


def _experiments() -> list[tuple[str, str]]:
    from harness.experiment.schema import experiment_names, load

    return [(name, load(name).description) for name in experiment_names()]


def _described(module: str) -> str:
    path = module_path(module)
    if path is None:
        return f"cannot be used (there is no module {module})"
    return first_sentence(ast.get_docstring(ast.parse(path.read_bytes())) or "")


KINDS: dict[str, Callable[[], list[tuple[str, str]]]] = {
    "systems": _systems,
    "metrics": _metrics,
    "corpora": _corpora,
    "experiments": _experiments,
}
