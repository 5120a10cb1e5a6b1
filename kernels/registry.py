"""Names of things that live one to a file: architectures, dictionaries, metrics, corpora, judges.

A file says `register("name", ...)` at its top level, and that is all: its folder is walked, the calls are read without
importing anything, and the file is imported when its name is first used. Other packages add theirs by entry point:
`name = package.module` in the registry's group, where the module registers that name. What cannot be used costs only
itself: it is left out, said once, and shown by `harness doctor`.

It lies in this package because every other one may import it.
"""

from __future__ import annotations

import ast
import difflib
import logging
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TypeVar

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[1]
E = TypeVar("E")


class Registry(Mapping[str, E]):
    """Name → entry, ours in order of file and place, then those of other packages in order of name.

    Names are known without an import; an entry costs the import of its file. `what` it holds (for messages), the
    `package` whose files are walked, the `group` of entry points, the `verb` that files call.
    """

    def __init__(self, what: str, package: str, group: str, verb: str = "register") -> None:
        self.what, self.package, self.group, self.verb = what, package, group, verb
        self._entries: dict[str, E] = {}

    def register(self, name: str, entry: E) -> E:
        """Called by the file that holds the entry. Raises ValueError where the name is taken."""
        if name in self._entries:
            raise ValueError(f"{self.what} {name!r} is already registered")
        self._entries[name] = entry
        return entry

    def modules(self) -> dict[str, str]:
        """Name → the module that registers it. Nothing is imported."""
        ours = registered(self.package, self.verb)
        return {**ours, **{name: module_of(point) for name, point in self._plugged().items()}}

    def named(self, name: str) -> E:
        """The entry of a name. Raises ValueError, in one line: there is none (with the nearest), or its module cannot
        be imported or registers something else."""
        if name in self._entries:
            return self._entries[name]
        modules = self.modules()
        if name not in modules:
            raise ValueError(f"no {self.what} {name!r}; {nearest(name, [*modules, *self._entries])}")
        try:
            import_module(modules[name])
        except Exception as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise ValueError(
                f"{self.what} {name!r} cannot be used: importing {modules[name]} gives {reason}"
            ) from error
        if name not in self._entries:
            raise ValueError(f"{self.what} {name!r} cannot be used: {modules[name]} registers no such name")
        return self._entries[name]

    def broken(self) -> list[str]:
        """One line for each name of another package that cannot be used."""
        found = []
        for name, point in self._plugged().items():
            try:
                self.named(name)
            except ValueError as error:
                found.append(f"{self.group}: {error} (of {_package(point)})")
        return found

    def _plugged(self) -> dict[str, EntryPoint]:
        return plugged(self.group, self.package, self.verb)

    def __getitem__(self, name: str) -> E:
        try:
            return self.named(name)
        except ValueError as error:
            raise KeyError(str(error)) from error

    def __contains__(self, name: object) -> bool:
        return name in self._entries or name in self.modules()

    def __iter__(self) -> Iterator[str]:
        return iter({**self.modules(), **dict.fromkeys(self._entries, "")})

    def __len__(self) -> int:
        return len({*self.modules(), *self._entries})


@cache
def registered(package: str, verb: str = "register") -> dict[str, str]:
    """Name → module, of all names that the files of one of our packages register (and those of its packages, in their
    `__init__.py`)."""
    folder = ROOT.joinpath(*package.split("."))
    files = {file: f"{package}.{file.stem}" for file in folder.glob("*.py") if file.stem != "__init__"}
    files |= {file: f"{package}.{file.parent.name}" for file in folder.glob("*/__init__.py")}
    found: dict[str, str] = {}
    for file in sorted(files):
        for name in _names_in(file, verb):
            if name in found:
                raise ValueError(f"{name!r} is registered by {found[name]} and by {files[file]}")
            found[name] = files[file]
    return found


def _names_in(file: Path, verb: str) -> list[str]:
    code = file.read_bytes()
    if verb.encode() not in code:
        return []
    calls = [node.value for node in ast.parse(code).body if isinstance(node, ast.Expr | ast.Assign)]
    return [
        call.args[0].value
        for call in calls
        if isinstance(call, ast.Call)
        and getattr(call.func, "id", getattr(call.func, "attr", "")) == verb
        and call.args
        and isinstance(call.args[0], ast.Constant)
        and isinstance(call.args[0].value, str)
    ]


@cache
def plugged(group: str, package: str, verb: str) -> dict[str, EntryPoint]:
    """Name → entry point, of what other packages add to a registry; asked once in a process, since every installed
    package is looked through."""
    found: dict[str, EntryPoint] = {}
    for point in sorted(entry_points(group=group), key=lambda point: (point.name, point.value)):
        if point.name in found or point.name in registered(package, verb):
            log.warning("%s: the name %r is taken; %s must choose another", group, point.name, _package(point))
        else:
            found[point.name] = point
    return found


def module_of(point: EntryPoint) -> str:
    """`package.module` of `package.module` and of `package.module:Class`."""
    return point.value.partition(":")[0].strip()


def nearest(name: str, allowed: Iterable[str]) -> str:
    """`did you mean X? ` where something is near, and all that is allowed."""
    known = sorted(set(allowed))
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"{hint}(allowed: {', '.join(known)})"


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else module_of(point)
