"""`harness clean`: frees what no results folder needs.

A results folder names the stages behind its rows; a stage's manifest names the ones it was made from. A run that is
alive holds `locks/run-<pid>`, which names every stage of its plan (Store.in_use), and the lock of the stage it is at.
Everything else in the store can be computed again and may go. MLflow's files stay.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.base.errors import BadInput, HarnessError
from harness.base.files import ROOT, Held, locked
from harness.store.stages import Store

log = logging.getLogger(__name__)

_KEY = re.compile(r"[0-9a-f]{20}")
_OURS = ("work", "locks", "mlflow")  # folders of the store that hold no finished stages


@dataclass(frozen=True)
class Leftover:
    """A folder or file that can go. `lock`: names of the locks to hold while it is removed."""

    path: Path
    kind: str
    bytes: int
    locks: tuple[str, ...]


@dataclass(frozen=True)
class Removable:
    leftovers: list[Leftover]
    kept: int  # finished stages that stay
    results: list[Path]  # results folders that were looked at
    running: int  # runs that are alive


class Cleaner:
    """While it is open no new run starts: it would rely on stages that are about to go.

    Raises HarnessError when another clean is under way or when a results folder's table cannot be read.
    """

    def __init__(self, store: Path, results: Sequence[Path]) -> None:
        if not store.is_dir():
            raise BadInput(f"no store at {store}; HARNESS_STORE names another")
        for folder in results:
            if not (folder / "table.json").is_file():
                raise BadInput(f"--results {folder} has no table.json, so it is no results folder")
        self.root = Store(store).root
        bases = (Path("results"), ROOT / "results")
        usual = {base.resolve() for parent in bases for base in (parent, parent / "local")}
        named = {path.parent.resolve() for base in usual for path in base.glob("*/table.json")}
        self.results = sorted(named | {folder.resolve() for folder in results})
        self._held = contextlib.ExitStack()

    def __enter__(self) -> Cleaner:
        try:
            self._held.enter_context(locked(self.root / "locks" / "clean", wait=False))
        except Held:
            raise HarnessError("another harness clean is under way, or a run is just starting; try again") from None
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def find(self) -> Removable:
        """What can go, largest first."""
        by_folder = {folder: keys for folder in self.results if (keys := _keys_of_results(folder)) is not None}
        needed = set[str]().union(*by_folder.values())
        running = [path for path in (self.root / "locks").glob("run-*") if self._is_held(path.name)]
        for path in running:
            needed |= set(path.read_text().split())
        stages = {path.name: path for path in self._stage_folders()}
        needed = _with_upstream(needed, stages)
        leftovers = [
            Leftover(path, path.parent.name, _bytes(path), (f"{path.parent.name}-{key}",))
            for key, path in stages.items()
            if key not in needed
        ]
        for path in sorted((self.root / "work").iterdir()):
            key = _KEY.search(path.name)
            locks = tuple(lock.name for lock in (self.root / "locks").glob(f"*-{key[0]}")) if key else ()
            unfinished = not path.name.startswith("replaced-")
            if not (unfinished and key and key[0] in needed and running):
                leftovers.append(Leftover(path, "unfinished" if unfinished else "replaced", _bytes(path), locks))
        leftovers = [each for each in leftovers if not any(self._is_held(lock) for lock in each.locks)]
        leftovers.sort(key=lambda each: -each.bytes)
        gone = sum(each.path in stages.values() for each in leftovers)
        return Removable(leftovers, len(stages) - gone, list(by_folder), len(running))

    def remove(self, found: Removable) -> int:
        """Bytes freed. What a process has locked meanwhile stays."""
        freed = 0
        for each in found.leftovers:
            with contextlib.ExitStack() as held:
                try:
                    for lock in each.locks:
                        held.enter_context(locked(self.root / "locks" / lock, wait=False))
                except Held:
                    log.info("%s stays: a running process has locked it", each.path.relative_to(self.root))
                    continue
                _remove(each.path, self.root / "work" / f"replaced-{each.path.name}-{os.getpid()}")
            freed += each.bytes
        for path in sorted((self.root / "locks").iterdir()):
            if path.name != "clean":
                with contextlib.suppress(Held), locked(path, wait=False):
                    path.unlink()
        return freed

    def _stage_folders(self) -> Iterator[Path]:
        for kind in sorted(path for path in self.root.iterdir() if path.is_dir() and path.name not in _OURS):
            yield from (path for path in sorted(kind.iterdir()) if _KEY.fullmatch(path.name))

    def _is_held(self, lock: str) -> bool:
        path = self.root / "locks" / lock
        if not path.exists():
            return False
        try:
            with locked(path, wait=False):
                return False
        except Held:
            return True


def describe(found: Removable) -> list[str]:
    """What was found, for people: what is kept and for whom, then what would go, by kind."""
    names = ", ".join(folder.name for folder in found.results) or "none"
    lines = [f"needed: {found.kept} stages (results folders: {names}; runs alive: {found.running})"]
    by_kind: dict[str, list[Leftover]] = {}
    for each in found.leftovers:
        by_kind.setdefault(each.kind, []).append(each)
    for kind, group in by_kind.items():
        lines.append(f"  {size(sum(each.bytes for each in group)):>10}  {len(group):4} {_WORDS.get(kind, kind)}")
    total = size(sum(each.bytes for each in found.leftovers))
    lines.append(f"not needed: {total}" if found.leftovers else "nothing to free")
    return lines


_WORDS = {
    "unfinished": "unfinished (checkpoints of runs that were stopped: they would start these stages again)",
    "replaced": "replaced by a newer result, and left by a kill",
}


def size(n_bytes: int) -> str:
    """Bytes for people: 12.3 MiB."""
    amount, units = float(n_bytes), ["B", "KiB", "MiB", "GiB", "TiB"]
    while amount >= 1024 and len(units) > 1:
        amount /= 1024
        units.pop(0)
    return f"{amount:.1f} {units[0]}" if units[0] != "B" else f"{n_bytes} B"


def _keys_of_results(folder: Path) -> set[str] | None:
    """Keys of the stages behind a results folder's rows; None if its table is not one of a comparison.

    Read without the schema: also the table of another version keeps its stages.
    """
    path = folder / "table.json"
    try:
        table: Any = json.loads(path.read_text())
        if not isinstance(table, dict) or "comparison" not in table:
            return None
        return {key for row in table["rows"] for key in row["provenance"]["stages"].values()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise HarnessError(f"cannot tell which stages {path} needs ({error!r}): mend it or move it away") from error


def _with_upstream(keys: Iterable[str], stages: dict[str, Path]) -> set[str]:
    """`keys` and, through the manifests, all that these stages were made from."""
    seen: set[str] = set()
    todo = list(keys)
    while todo:
        key = todo.pop()
        if key in seen:
            continue
        seen.add(key)
        if key in stages:
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # damaged: computed again anyway
                todo += json.loads((stages[key] / "manifest.json").read_text())["upstream"]
    return seen


def _bytes(path: Path) -> int:
    return sum(file.lstat().st_size for file in path.rglob("*") if not file.is_dir()) if path.is_dir() else 0


def _remove(path: Path, aside: Path) -> None:
    """A stage disappears by one rename, as it appeared: a kill in the middle leaves no half of it."""
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    path.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)
