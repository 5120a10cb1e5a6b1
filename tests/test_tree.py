"""The shape of the code, from its imports and its files: which folder may import which, and how long things are."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import networkx as nx
import pytest

ROOT = Path(__file__).resolve().parents[1]
# From the bottom; a folder imports only from layers below its own.
LAYERS = (
    ("kernels",),
    ("models", "saes", "harness.base"),
    ("harness.store", "harness.corpus", "harness.systems", "harness.tables"),
    ("harness.training", "harness.metrics", "harness.report", "harness.tracking"),
    ("harness.experiment", "harness.bench"),
    ("harness.run",),
    ("harness.cli",),
)
LONGEST_FILE, LONGEST_FUNCTION, MOST_ENTRIES = 400, 60, 14
# What may be longer, and why.
LONGER_FILES: dict[str, str] = {}
LONGER_FUNCTIONS: dict[str, str] = {}


@cache
def modules() -> dict[str, Path]:
    found = {}
    for package in ("harness", "models", "saes", "kernels"):
        for path in sorted((ROOT / package).rglob("*.py")):
            found[".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")] = path
    return found


def imported(path: Path) -> Iterator[str]:
    """Modules of ours that a file imports, wherever it does; not those that only a type checker imports."""
    tree = ast.parse(path.read_bytes())
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in modules() else node.module for name in inside]
        yield from (name for name in names if name in modules())


@cache
def imports() -> nx.DiGraph:
    graph = nx.DiGraph()
    graph.add_nodes_from(modules())
    graph.add_edges_from((name, other) for name, path in modules().items() for other in imported(path) if other != name)
    return graph


def folder_of(module: str) -> str:
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "harness" else parts[0]


LAYER = {folder: number for number, layer in enumerate(LAYERS) for folder in layer}


def test_every_folder_has_its_place_in_one_of_seven_layers() -> None:
    assert len(LAYERS) <= 7
    assert {folder_of(name) for name in modules()} - {"harness"} == set(LAYER)


def test_imports_point_down() -> None:
    wrong = [
        f"{name} imports {other}"
        for name, other in imports().edges
        if (a := folder_of(name)) != (b := folder_of(other)) and LAYER[b] >= LAYER[a]
    ]
    assert not wrong


def test_no_module_imports_itself_by_a_detour() -> None:
    assert [sorted(part) for part in nx.strongly_connected_components(imports()) if len(part) > 1] == []


def test_the_top_of_harness_fits_in_a_glance() -> None:
    entries = [path for path in (ROOT / "harness").iterdir() if not path.name.startswith(("__", "."))]
    assert len(entries) <= MOST_ENTRIES, sorted(path.name for path in entries)


def test_a_file_fits_in_a_head() -> None:
    long = {name: len(path.read_text().splitlines()) for name, path in modules().items()}
    assert {name: n for name, n in long.items() if n > LONGEST_FILE}.keys() == LONGER_FILES.keys()


def test_a_function_fits_on_a_screen() -> None:
    long = {
        f"{name}.{node.name}": node.end_lineno - node.lineno + 1
        for name, path in modules().items()
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno
    }
    assert {name: n for name, n in long.items() if n > LONGEST_FUNCTION}.keys() == LONGER_FUNCTIONS.keys()


@pytest.mark.parametrize("folder", ["harness", "models", "saes", "kernels", "results", "tests"])
def test_a_folder_says_what_lives_in_it(folder: str) -> None:
    assert (ROOT / folder / "README.md").is_file()


def test_what_the_walk_names_is_there() -> None:
    """From `harness run quickstart` to a number in the table, in at most eight files."""
    text = (ROOT / "harness" / "README.md").read_text()
    walk = text[text.index("## From a command to a number") :].split("\n## ")[0]
    files = [line.split("`")[1] for line in walk.splitlines() if line[:2].rstrip(".").isdigit()]
    assert 0 < len(files) <= 8
    assert [name for name in files if not (ROOT / name).is_file()] == []
