"""The files of a folder. Links are followed; whatever is left out is said."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path

from harness.base.errors import BadInput

log = logging.getLogger(__name__)


def files_of(path: Path, suffixes: tuple[str, ...] = ()) -> dict[str, Path]:
    """Files under `path` by their name from there, in order of name; `path` may be one file.

    Hidden files are left out, and with `suffixes` whatever has another. Linked files and folders are read as if they
    lay there; a link into a folder around itself, or to nothing, is left out with a warning. Raises BadInput where
    `path` does not exist or a name is not UTF-8.
    """
    if not path.exists():
        near = path
        while not near.exists():
            near = near.parent
        raise BadInput(f"path {path} does not exist (what does: {near})")
    if path.is_file():
        return {path.name: path}
    found = {}
    for file in _walked(path, ()):
        name = file.relative_to(path).as_posix()
        try:
            name.encode()
        except UnicodeEncodeError:
            raise BadInput(f"{path}: the file name {os.fsencode(name)!r} is not UTF-8; rename it") from None
        if not suffixes or file.suffix.lower() in suffixes:
            found[name] = file
    return dict(sorted(found.items()))


def contents_digest(path: Path) -> str:
    """SHA-256 of the names and bytes of the files under `path`: nothing else pins a person's own files."""
    found = hashlib.sha256()
    for name, file in files_of(path).items():
        with file.open("rb") as opened:
            found.update(f"{name}\x1f{hashlib.file_digest(opened, 'sha256').hexdigest()}\x1e".encode())
    return found.hexdigest()


def _walked(folder: Path, around: tuple[Path, ...]) -> list[Path]:
    """Every file that is not hidden. `around`: the real folders that this one lies in."""
    real = folder.resolve()
    if real in around:
        log.warning("%s links into a folder around itself: left out", folder)
        return []
    found = []
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            found += _walked(entry, (*around, real))
        elif entry.is_file():
            found.append(entry)
        else:
            log.warning("%s is no file, or links to none: left out", entry)
    return found
