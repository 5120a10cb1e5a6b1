"""One smoke run that all tests here look at: a process of its own, a store of its own, real text."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness import cli


@dataclass(frozen=True)
class Ran:
    store: Path
    out: Path
    stdout: str
    stderr: str


def harness(*arguments: str, store: Path, check: bool = True, threads: int = 1) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HARNESS_STORE": str(store), "OMP_NUM_THREADS": str(threads)}
    environment.pop("MLFLOW_TRACKING_URI", None)
    command = [sys.executable, "-m", "harness.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=check, timeout=500)


@pytest.fixture(scope="session")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("smoke")
    done = harness("run", "smoke", "--out", str(folder / "out"), store=folder / "store")
    return Ran(folder / "store", folder / "out", done.stdout, done.stderr)


@pytest.fixture
def in_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> Callable[..., tuple[int, str]]:
    """The command line without a process of its own (which takes seconds to import): exit code and what was said."""

    def run(*arguments: str, store: Path) -> tuple[int, str]:
        monkeypatch.setenv("HARNESS_STORE", str(store))
        monkeypatch.setattr(sys, "argv", ["harness", *arguments])
        caplog.clear()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out + printed.err + caplog.text

    return run
