"""`harness doctor`: what this installation has, and what to do where something is broken.

A thing that can be done without (a GPU) is never broken. Nothing heavy but torch is imported.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sqlite3
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.base.errors import HarnessError
from harness.store.clean import size

_LITTLE_DISK = 2 * 2**30
_SHOWN = ("torch", "transformers", "sae-lens", "mlflow", "datasets")  # versions that people ask for first
# Op -> the fast implementations it has, as its call of dispatch.choose says (a test compares).
OPS: dict[str, tuple[str, ...]] = {
    "product_keys": ("cpu", "gpu"),
    "rank1_experts": ("cpu", "gpu"),
    "rank1_coefficients": ("cpu", "gpu"),
    "topk": ("cpu", "gpu"),
    "batch_topk": ("cpu", "gpu"),
    "column_topk": ("cpu", "gpu"),
    "positive": ("cpu",),
    "sparse_decode": ("cpu", "gpu"),
    "sparse_encode": ("cpu", "gpu"),
    "row_sparse_adam": ("cpu",),
}


@dataclass(frozen=True)
class Check:
    """One line: `text` is what there is, or, where not ok, what is wrong and what to do."""

    name: str
    ok: bool
    text: str


def checks(store: Path) -> list[Check]:
    """Everything, in the order in which one would mend it. `store`: the store's root, which need not exist yet."""
    parts: list[Callable[[], Iterator[Check]]] = [
        _python,
        _packages,
        _devices,
        _kernels,
        lambda: _store(store),
        _corpora,
        _plugins,
        lambda: _tracking(store),
    ]
    return [check for part in parts for check in part()]


def _python() -> Iterator[Check]:
    running = f"{platform.python_version()} in {sys.prefix}"
    fine = (3, 11) <= sys.version_info[:2] <= (3, 14)
    yield Check("python", fine, running if fine else f"{running}: use 3.11 to 3.14 (make PYTHON=python3.13)")


def _packages() -> Iterator[Check]:
    from harness.tables.provenance import requirements

    wanted = requirements()
    for requirement in wanted:
        found = _version(requirement.name)
        if found is None or not requirement.specifier.contains(found, prereleases=True):
            what = "not installed" if found is None else f"{found} is not {requirement.specifier}"
            yield Check(requirement.name, False, f"{what}: pip install '{requirement}'")
    shown = ", ".join(f"{name} {_version(name)}" for name in _SHOWN if _version(name))
    yield Check("packages", True, f"{shown}; {len(wanted)} are required in all")


def _devices() -> Iterator[Check]:
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = torch.get_num_threads()
    crowded = "" if threads <= cores else f": more threads than cores, which is slow; set OMP_NUM_THREADS={cores}"
    yield Check("threads", not crowded, f"{threads} of torch on {cores} cores{crowded}")
    if not torch.cuda.is_available():
        yield Check("GPU", True, "none that torch can use; everything runs on the CPU")
        return
    free, total = torch.cuda.mem_get_info()
    yield Check("GPU", True, f"{torch.cuda.get_device_name(0)}, {size(free)} of {size(total)} free")


def _kernels() -> Iterator[Check]:
    import torch

    from kernels import dispatch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    for package, implementation, where in (("numba", "cpu", "cpu"), ("triton", "gpu", "cuda")):
        found = _version(package)
        if found is None:
            yield Check(package, False, f"not installed, slow kernels are used instead: pip install {package}")
        elif where == device:
            yield _tried(package, found, implementation, device)
        else:
            yield Check(package, True, f"{found}; not used: the kernels run on the {device.upper()}")
    try:
        by_implementation: dict[str, list[str]] = {}
        for op, has in OPS.items():
            by_implementation.setdefault(dispatch.choose(op, device, torch.float32, has), []).append(op)
    except ValueError as error:  # HARNESS_KERNELS names none
        yield Check("kernels", False, str(error))
        return
    chosen = "; ".join(f"{name}: {', '.join(ops)}" for name, ops in sorted(by_implementation.items()))
    forced = f" (HARNESS_KERNELS={dispatch.forced()})" if dispatch.forced() else ""
    yield Check("kernels", True, f"{chosen}{forced}")


def _tried(package: str, found: str, implementation: str, device: str) -> Check:
    """Runs the smallest kernel there is: compilers fail when they are used, not when they are imported."""
    import torch

    from kernels import dispatch

    try:
        dispatch.load("kernels.selection", implementation).topk(torch.tensor([[1.0, 3.0, 2.0]], device=device), 2)
    except Exception as error:  # whatever a compiler raises is what has to be said
        first = (str(error).splitlines() or [repr(error)])[0]
        advice = "a C compiler on PATH is needed" if package == "triton" else f"reinstall {package}"
        return Check(
            package, False, f"{found} cannot run a kernel ({first[:160]}): {advice}, or HARNESS_KERNELS=reference"
        )
    return Check(package, True, f"{found}; a kernel of it ran")


def _store(store: Path) -> Iterator[Check]:
    existing = next(path for path in (store, *store.parents) if path.exists())
    try:
        if not existing.is_dir():
            raise NotADirectoryError(0, f"{existing} is a file")
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        yield Check("store", False, f"cannot write {store}: {error.strerror}; choose another with HARNESS_STORE")
        return
    used = sum(path.lstat().st_size for path in store.rglob("*") if path.is_file()) if store.is_dir() else 0
    count = len(list(store.glob("*/*/manifest.json")))
    yield Check("store", True, f"{store}: {count} stages, {size(used)} (harness clean frees what is not needed)")
    free = shutil.disk_usage(existing).free
    little = (
        f": little; make room, run harness clean or move the store with HARNESS_STORE ({size(_LITTLE_DISK)} is safe)"
    )
    yield Check("disk", free >= _LITTLE_DISK, f"{size(free)} free{'' if free >= _LITTLE_DISK else little}")


def _plugins() -> Iterator[Check]:
    """Other packages' entry points; nothing where there are none."""
    from harness.corpus.config import CORPORA
    from harness.metrics.autointerp.judge import JUDGES
    from harness.metrics.metric import METRICS
    from models import ARCHITECTURES
    from saes import DICTIONARIES

    for registry in (ARCHITECTURES, DICTIONARIES, METRICS, CORPORA, JUDGES):
        for line in registry.broken():
            yield Check("plugin", False, line)


def _corpora() -> Iterator[Check]:
    from harness.corpus.config import CORPORA, packages_of

    for kind, config in CORPORA.items():
        # What is asked for here does not depend on a path.
        unchecked = config.model_construct(kind=kind)
        try:
            packages = packages_of(unchecked)
        except HarnessError as error:
            yield Check(f"corpus {kind}", False, str(error))
            continue
        absent = [name for name in packages if _version(name) is None]
        text = f"packages it reads: {len(packages)}, all installed" if not absent else f"pip install {' '.join(absent)}"
        yield Check(f"corpus {kind}", not absent, text)


def _tracking(store: Path) -> Iterator[Check]:
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    database = store / "mlflow" / "mlflow.db"
    if uri and uri.startswith(("http://", "https://")):
        try:
            with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=5):
                yield Check("tracking", True, f"{uri} answers")
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            advice = "start it, or unset MLFLOW_TRACKING_URI; runs go on without it, harness log sends them later"
            yield Check("tracking", False, f"{uri} does not answer ({reason}): {advice}")
    elif uri:
        yield Check("tracking", True, f"{uri} (not asked)")
    elif not database.is_file():
        yield Check("tracking", True, f"the first run makes {database}")
    else:
        try:
            with sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=5) as connection:
                count = connection.execute("select count(*) from runs").fetchone()[0]
            yield Check("tracking", True, f"{database}: {count} runs, {size(database.stat().st_size)} (harness ui)")
        except sqlite3.Error as error:
            yield Check("tracking", False, f"{database}: {error}; move it away, the results folders are the record")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
