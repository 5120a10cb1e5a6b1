"""The store: every stage's output, under a hash of everything that determines it.

A stage is corpus → subject → dictionary → codes → metric. Its key hashes its configuration, the keys of the stages it
reads, the source of the modules that compute it and of all that they use (`source.py`), and the numerical setting
(device, dtype, threads).
So a repeated run finds what it needs, a changed line of code or option recomputes just what depends on it, and a stale
result cannot be reused unseen.

On disk, below the store's root:

    <kind>/<key>/           a finished stage: its files and manifest.json (sizes and SHA-256 of every file)
    work/<kind>-<key>/      a stage under way; may hold checkpoints, so a killed run continues here
    locks/<kind>-<key>      held (flock) by the process that computes the stage; the system frees it when that dies
    locks/run-<pid>-<random> held by a run while it lives; names the stages that it needs (see harness/store/clean.py)

A stage becomes visible by one rename, after its files were flushed to disk. Nothing else in the store is shared.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.base.errors import BadInput, HarnessError
from harness.base.files import digest, locked
from harness.store.source import source_digest

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stage:
    """What is computed: its kind, a short label for people, and all that determines the result.

    config: JSON-able. upstream: keys of the stages it reads. modules: names of the modules that compute it; what they
    import of this project is followed.
    """

    kind: str
    label: str
    config: dict[str, Any]
    upstream: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    key: str = field(init=False)

    def __post_init__(self) -> None:
        determined_by = {
            "kind": self.kind,
            "config": self.config,
            "upstream": list(self.upstream),
            "source": source_digest(self.modules),
        }
        object.__setattr__(self, "key", digest(determined_by)[:20])

    @property
    def folder(self) -> str:
        return f"{self.kind}/{self.key}"


class Store:
    """Finished and unfinished stages below `root`.

    fresh: recompute each stage once in this process even if it is stored, then put the new one in the old one's place.
    """

    def __init__(self, root: Path, *, fresh: bool = False) -> None:
        self.root = root.resolve()
        self._recomputed: set[str] | None = set() if fresh else None
        self._verified: set[str] = set()
        self._damaged: set[str] = set()  # said so already
        try:
            for name in ("work", "locks"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInput(
                f"cannot write to the store {self.root}: {error.strerror}; choose another place with HARNESS_STORE"
            ) from error

    def finished(self, stage: Stage) -> Path | None:
        """The folder of a finished, undamaged stage; None if it has to be computed."""
        folder = self.root / stage.folder
        if self._recomputed is not None and stage.key not in self._recomputed:
            return None
        if not (folder / "manifest.json").is_file():
            return None
        if stage.key not in self._verified:
            damage = _damage(folder)
            if damage:
                if stage.key not in self._damaged:
                    log.warning("stored %s is damaged (%s): computing it again", stage.label, damage)
                    self._damaged.add(stage.key)
                return None
            self._verified.add(stage.key)
        return folder

    def run(self, stage: Stage, produce: Callable[[Path], None]) -> Path:
        """The folder of `stage`, computed by `produce(work_folder)` unless it is stored.

        `produce` may find a work folder left by a killed run, and is expected to continue from what it finds there.
        Whatever is in `work_folder/checkpoint` is dropped at the end; everything else becomes the stage.
        """
        return self.run_together([stage], lambda missing: produce(missing[stage.key]))[0]

    def run_together(self, stages: Sequence[Stage], produce: Callable[[dict[str, Path]], None]) -> list[Path]:
        """Stages that one pass can compute at once. `produce` gets the work folders of the missing ones, by key."""
        missing = sorted((s for s in stages if self.finished(s) is None), key=lambda s: s.key)
        with self.disk_errors(), contextlib.ExitStack() as locks:
            for stage in missing:
                locks.enter_context(self._lock(stage))
            # Another run may have finished them while this one waited for the lock.
            missing = [stage for stage in missing if self.finished(stage) is None]
            work = {stage.key: self._work(stage) for stage in missing}
            if missing:
                for folder in work.values():
                    folder.mkdir(parents=True, exist_ok=True)
                produce(work)
                for stage in missing:
                    self._finish(stage, work[stage.key])
        return [self.root / stage.folder for stage in stages]

    @contextlib.contextmanager
    def in_use(self, stages: Sequence[Stage]) -> Iterator[None]:
        """While the block runs, `harness clean` leaves these stages alone, finished or not."""
        # Two containers that share a store may both be process 1.
        path = self.root / "locks" / f"run-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        with contextlib.ExitStack() as held:
            waiting = "waiting: harness clean is under way"
            with self.disk_errors(), locked(self.root / "locks" / "clean", shared=True, waiting=waiting):
                file = held.enter_context(locked(path))
                file.truncate(0)
                file.write("\n".join(stage.key for stage in stages))
                file.flush()
            held.callback(path.unlink, missing_ok=True)
            yield

    @contextlib.contextmanager
    def disk_errors(self) -> Iterator[None]:
        """Says in one line what a full or forbidden disk makes of the block. Libraries hide it in errors of theirs."""
        try:
            yield
        except HarnessError:
            raise
        except Exception as error:
            clear = _disk_error(error, self.root)
            if clear is None:
                raise
            raise clear from error

    def _work(self, stage: Stage) -> Path:
        return self.root / "work" / f"{stage.kind}-{stage.key}{'' if self._recomputed is None else '-fresh'}"

    def _finish(self, stage: Stage, work: Path) -> None:
        shutil.rmtree(work / "checkpoint", ignore_errors=True)
        files = {}
        for path in sorted(p for p in work.rglob("*") if p.is_file() and p.name != "manifest.json"):
            files[str(path.relative_to(work))] = {"bytes": path.stat().st_size, "sha256": _sha256(path)}
            _flush(path)
        manifest = {
            "kind": stage.kind,
            "label": stage.label,
            "key": stage.key,
            "config": stage.config,
            "upstream": list(stage.upstream),
            "files": files,
        }
        (work / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True))
        _flush(work / "manifest.json")
        final = self.root / stage.folder
        final.parent.mkdir(parents=True, exist_ok=True)
        if final.exists():
            # A damaged or to-be-replaced stage: move it aside first, since a folder cannot be renamed over another.
            aside = self.root / "work" / f"replaced-{stage.key}-{os.getpid()}"
            final.rename(aside)
            work.rename(final)
            shutil.rmtree(aside, ignore_errors=True)
        else:
            work.rename(final)
        _flush(final.parent)
        self._verified.add(stage.key)
        if self._recomputed is not None:
            self._recomputed.add(stage.key)

    @contextlib.contextmanager
    def _lock(self, stage: Stage) -> Iterator[None]:
        path = self.root / "locks" / f"{stage.kind}-{stage.key}"
        with locked(path, waiting=f"waiting: another run is computing {stage.label}"):
            yield


def _damage(folder: Path) -> str | None:
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        for name, expected in manifest["files"].items():
            path = folder / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != expected["bytes"] or _sha256(path) != expected["sha256"]:
                return f"{name} does not match its checksum"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"unreadable manifest: {error}"
    return None


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _disk_error(error: Exception, root: Path) -> HarnessError | None:
    import errno

    number = error.errno if isinstance(error, OSError) else None
    free = shutil.disk_usage(root).free if root.exists() else 0
    # torch and safetensors raise errors of their own, without a number and not always with the reason.
    full = "No space left" in str(error) or (isinstance(error, RuntimeError) and free < 2**20)
    if number in (errno.ENOSPC, errno.EDQUOT) or full:
        return HarnessError(
            f"the disk of the store is full ({free // 2**20} MiB free at {root}); nothing is lost: free some space "
            "(`harness clean`) and run the same command again"
        )
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return HarnessError(f"no permission to write {getattr(error, 'filename', None) or root}: {os.strerror(number)}")
    return None
