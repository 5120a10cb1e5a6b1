"""`harness verify` and `harness diff`: does a results folder still say what its experiment gives, or what another says?
What they need, they import themselves."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.base.errors import BadInput
from harness.base.files import store_root
from harness.run.stopping import stop_after_a_checkpoint, stop_at_once

if TYPE_CHECKING:
    from harness.run.again import Again
    from harness.tables.table import Table

RESULTS = Path("results")


def verify(
    results: Annotated[
        Path | None, typer.Argument(help="A results folder; with --stale also a folder of them [default: results].")
    ] = None,
    stale: Annotated[
        bool, typer.Option("--stale", help="Run nothing: list folders of other settings or metric versions.")
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Compute every stage again, in a store that is thrown away.")
    ] = False,
    device: Annotated[
        str | None, typer.Option(help="As for run. Default: what the table was made on, where it is here.")
    ] = None,
) -> None:
    """Run a results folder's experiment again and compare figure by figure. Exit 0: they agree, 1: they differ.

    To the last digit on the machine and versions that made it, else within the intervals; nothing is written.
    """
    stop_at_once()
    if stale:
        if fresh or device is not None:
            raise BadInput("--stale runs nothing: it goes with neither --fresh nor --device")
        raise typer.Exit(_list_stale(results or RESULTS))
    if results is None:
        raise BadInput("verify needs a results folder, such as results/quickstart (or --stale, for all)")
    from harness.run.again import run_again
    from harness.store.stages import Store

    with _store_of(fresh) as root:
        stop_after_a_checkpoint()
        again = run_again(results, Store(root), device)
    typer.echo(f"A: {results}")
    typer.echo(f"B: run now; {again.were_there} of {again.stages} stages were stored{_nothing_ran(again)}")
    raise typer.Exit(_compare(again.stored, again.made))


def diff(
    a: Annotated[Path, typer.Argument(help="A results folder.")],
    b: Annotated[Path, typer.Argument(help="Another.")],
) -> None:
    """Compare two results folders figure by figure, as verify does. Exit 0: they agree, 1: they differ."""
    from harness.tables.folder import read

    tables = read(a), read(b)
    typer.echo(f"A: {a}")
    typer.echo(f"B: {b}")
    raise typer.Exit(_compare(*tables))


@contextlib.contextmanager
def _store_of(fresh: bool) -> Iterator[Path]:
    """The store's root; with `fresh` an empty one, so that the figures of the person's own stay as they are."""
    if not fresh:
        yield store_root()
        return
    with tempfile.TemporaryDirectory(prefix="harness-verify-store-") as temporary:
        yield Path(temporary)


def _nothing_ran(again: Again) -> str:
    return "; nothing was computed again (--fresh does)" if again.were_there == again.stages else ""


def _compare(a: Table, b: Table) -> int:
    """Says what differs; the exit status."""
    from harness.tables.agreement import agreement
    from harness.tables.agreement_text import lines

    found = agreement(a, b)
    for line in lines(found):
        typer.echo(line)
    return 0 if found.agrees else 1


def _list_stale(results: Path) -> int:
    """Says which folders are stale, and why; the exit status."""
    from harness.run.stale import folders, reasons
    from harness.tables.agreement_text import wrapped

    found = {folder: reasons(folder) for folder in folders(results)}
    for folder, why in found.items():
        for line in [str(folder), *(line for reason in why for line in wrapped(reason, 2))] if why else []:
            typer.echo(line)
    stale = sum(bool(why) for why in found.values())
    typer.echo(f"total: {stale} of {len(found)} folders are older than the tree (nothing was run)")
    return 1 if stale else 0
