"""`harness lm-eval`: lm-eval's command line in a process that knows our architectures and local tasks."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.metrics.tasks import local_names, local_tasks


def run_lm_eval(arguments: Sequence[str], data: Path | None) -> None:
    """Runs lm-eval with `arguments`; with `data`, its local tasks are known by name. It exits as lm-eval does."""
    import torch
    from lm_eval.__main__ import cli_evaluate

    import models  # noqa: F401 (registers our architectures with the Auto classes)

    torch.set_num_threads(torch.get_num_threads())  # as a run does (harness/run/comparison.py): the same last digits
    with contextlib.ExitStack() as stack:
        more: list[str] = []
        if data is not None:
            folder = stack.enter_context(local_tasks(data, local_names(data)))
            more = ["--include_path", str(folder)]
        stack.callback(setattr, sys, "argv", sys.argv)
        sys.argv = ["lm-eval", *arguments, *more]
        cli_evaluate()
