"""Files and folders: written whole or not at all, locked between processes; where this checkout lies."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from harness.base.errors import BadInput, HarnessError

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[2]  # of the checkout


def store_root() -> Path:
    """Where stages, tracking and replies are kept: $HARNESS_STORE, or .harness in this checkout."""
    return Path(os.environ.get("HARNESS_STORE") or ROOT / ".harness")


def write_atomically(path: Path, data: bytes) -> None:
    """Writes beside and renames, so that a reader, a full disk or a killed process never leaves half a file.

    Raises HarnessError where the disk is full or the folder cannot be written.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not mkstemp: its files are private (0600), and what the process's umask is cannot be asked without setting it,
        # beside other threads.
        temporary = path.parent / f".{path.name[:100]}.{uuid.uuid4().hex}"
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise HarnessError(f"cannot write {path}: {error.strerror or error}") from error


def check_writable(folder: Path) -> None:
    """Makes a results folder and tries it, before anything is computed for it. Raises BadInput."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (FileExistsError, NotADirectoryError):
        raise BadInput(f"results folder {folder}: a file is in its place; name another with --out") from None
    except OSError as error:
        raise BadInput(f"cannot write results folder {folder}: {error.strerror}; name another with --out") from None


class Held(Exception):
    """Another process holds the lock."""


@contextlib.contextmanager
def locked(path: Path, *, shared: bool = False, wait: bool = True, waiting: str = "") -> Iterator[TextIO]:
    """Holds the lock at `path` (flock: the system frees it when its holder dies), waiting for it or raising Held.

    waiting: said, if not empty, when there is something to wait for.
    """
    how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    while True:
        with open(path, "a") as file:
            try:
                fcntl.flock(file, how | fcntl.LOCK_NB)
            except BlockingIOError:
                if not wait:
                    raise Held from None
                if waiting:
                    log.info("%s", waiting)
                fcntl.flock(file, how)
            # `harness clean` may have removed the file meanwhile; a lock on a removed file keeps nobody out.
            if path.exists() and os.fstat(file.fileno()).st_ino == path.stat().st_ino:
                yield file
                return


def digest(value: Any) -> str:
    """SHA-256 of the canonical JSON of `value` (sorted keys, no spaces)."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
