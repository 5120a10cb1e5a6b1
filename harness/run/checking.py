"""`harness check NAME`: whether a small model of an architecture, ours or another package's, is what it says."""

from __future__ import annotations

import logging
import time
from typing import Annotated

import typer

from harness.base.errors import BadInput


def check(
    name: Annotated[str, typer.Argument(help="An architecture: `harness list systems`, or one of a package of yours.")],
) -> None:
    """Ask a small model of an architecture whether it keeps the interface: a line for every rule it breaks, exit 1."""
    from transformers.utils import logging as transformers_logging

    import models
    from models import conformance

    transformers_logging.disable_progress_bar()
    logging.getLogger("kernels").setLevel(logging.ERROR)  # which kernel runs in float64 is no news here
    if name not in models.ARCHITECTURES:
        from kernels.registry import nearest

        raise BadInput(f"no architecture {name!r}; {nearest(name, models.ARCHITECTURES)}")
    began = time.monotonic()
    try:
        found = conformance.findings(name)
    except ValueError as error:
        raise BadInput(f"{name}: no small model of it can be built ({error}); its config may state `small`") from error
    for broken in found:
        typer.echo(f"{name}: {broken}")
    if found:
        raise typer.Exit(1)
    typer.echo(f"{name} is what it says ({time.monotonic() - began:.1f} s); what was asked: models/conformance.py")
