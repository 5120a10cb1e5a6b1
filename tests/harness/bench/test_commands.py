from __future__ import annotations

import inspect
import re
from pathlib import Path

from harness.bench import commands


def test_no_command_writes_over_a_committed_reference_unasked() -> None:
    """What each gives where nobody says --out lies in results/local, which git does not see."""
    for command in commands.bench.registered_commands:
        assert command.callback is not None
        out = inspect.signature(command.callback).parameters["out"].default
        assert out is None or out.parent == commands.LOCAL_RESULTS
    written = re.findall(r'"(results/[^"]*)"', Path(commands.__file__).read_text())  # also where the default is None
    assert written == ["results/local"]
