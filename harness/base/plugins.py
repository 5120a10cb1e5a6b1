"""What other installed packages add: architectures, dictionaries and metrics, by entry point.

A package that cannot be imported costs only what it would have added: it is skipped, said once, and shown by
`harness doctor`. A name that is ours, or that another package took first, is not given away.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points

log = logging.getLogger(__name__)


def module_of(point: EntryPoint) -> str:
    """`package.module` of `package.module` and of `package.module:Class`."""
    return point.value.partition(":")[0].strip()


def named(group: str, taken: Iterable[str]) -> dict[str, str]:
    """Entry points of a group: name → module. Those whose name is taken are left out, with a warning."""
    found: dict[str, str] = {}
    for point in entry_points(group=group):
        if point.name in {*taken, *found}:
            _say(f"{group}: the name {point.name!r} is taken; {_of(point)} must register it under another")
        else:
            found[point.name] = module_of(point)
    return found


@functools.cache
def load_all(group: str) -> tuple[str, ...]:
    """Imports every module of a group, once; what it registers is its own affair. Returns one line for each that could
    not be."""
    broken = []
    for point in entry_points(group=group):
        try:
            import_module(module_of(point))
        except Exception as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            broken.append(f"{group}: {point.name!r} of {_of(point)} cannot be used: {reason}")
            _say(broken[-1])
    return tuple(broken)


def _of(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else module_of(point)


@functools.cache
def _say(line: str) -> None:
    log.warning("%s", line)
