"""Where a table comes from: code, packages, machine. Nothing here names a path, a user or a host."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import psutil
from packaging.requirements import Requirement

from harness.base.files import ROOT
from harness.tables.table import Hardware, Provenance

CHECKOUT = ROOT
_DISTRIBUTION = "readable-harness"


def git_commit() -> tuple[str | None, bool | None]:
    """Commit of this checkout and whether tracked files differ from it; None, None outside git or before any commit.

    `results/` does not count as a change: a run rewrites it.
    """

    def git(*arguments: str) -> str:
        # An experiment must not write the index of a repository that someone else is committing in.
        command = ["git", "--no-optional-locks", "-C", str(CHECKOUT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()

    try:
        commit = git("rev-parse", "HEAD")
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)results")
    except (OSError, subprocess.SubprocessError):
        return None, None
    return commit, bool(changed)


def requirements() -> list[Requirement]:
    """What pyproject.toml asks for, extras left out."""
    try:
        wanted = importlib.metadata.requires(_DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:  # run from a bare checkout: what pyproject.toml says itself
        import tomllib

        wanted = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["dependencies"]
    return [Requirement(each) for each in wanted if "extra ==" not in each]


def package_versions() -> dict[str, str]:
    """Installed versions of what pyproject.toml asks for, by name."""
    versions = {}
    for requirement in requirements():
        try:
            versions[requirement.name] = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return dict(sorted(versions.items()))


def _cpu_model() -> str:
    """As the system calls it, with the numbers that tell generations apart where virtual machines hide the name: what
    two of them compute differs in the last digits."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    named = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    if named is None:
        return platform.processor() or platform.machine()
    numbers = [re.search(rf"^{key}\s*:\s*(\d+)$", text, re.MULTILINE) for key in ("cpu family", "model", "stepping")]
    told = "-".join(found.group(1) for found in numbers if found)
    return f"{named.group(1).strip()} ({told})" if told else named.group(1).strip()


def hardware() -> Hardware:
    """CPU model, cores this process may use, memory, GPU."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    gpu = None
    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        gpu = torch.cuda.get_device_name(0) + (f" x {count}" if count > 1 else "")
    memory = psutil.virtual_memory().total / 2**30
    return Hardware(cpu=_cpu_model(), cores=cores, memory_gib=round(memory, 1), gpu=gpu)


def collect(config_hash: str, corpus_hash: str, dtype: str, device: str) -> Provenance:
    """The provenance of a table made by this process, now."""
    import torch

    commit, dirty = git_commit()
    return Provenance(
        commit=commit,
        dirty=dirty,
        config_hash=config_hash,
        corpus_hash=corpus_hash,
        packages=package_versions(),
        hardware=hardware(),
        threads=torch.get_num_threads(),
        python=platform.python_version(),
        os=f"{platform.system()} {platform.machine()}",
        dtype=dtype,
        device=device,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
