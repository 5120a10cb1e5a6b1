"""`harness bench …`: each measures the harness itself and writes a table. What a command needs, it imports itself."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from harness.base.errors import BadInput

# As of a run: what a person makes goes where git does not look, and the reference beside it is made with --out.
LOCAL_RESULTS = Path("results/local")

bench = typer.Typer(help="Measure the harness itself.", no_args_is_help=True, rich_markup_mode=None)


class KnownWorld(StrEnum):
    """Data whose features are known."""

    planted = "planted"
    synth_sae_bench = "synth_sae_bench"


@bench.command()
def faults(
    kills: Annotated[int, typer.Option(min=1, help="How often a run is killed.")] = 20,
    out: Annotated[Path, typer.Option(help="Folder of table.md and table.json.")] = LOCAL_RESULTS / "faults",
    seed: Annotated[int, typer.Option(help="Which moments are drawn.")] = 0,
) -> None:
    """Kill real runs at random moments and see that the table they end with is that of an undisturbed run."""
    from harness.bench.faults import measure

    report = measure(kills, out, seed)
    typer.echo(f"{report.summary()}: {out}/table.md")
    raise typer.Exit(0 if report.passed else 1)


@bench.command()
def dictionaries(
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of table.md and table.json [default: dictionaries or synth_sae_bench in results/local]."
        ),
    ] = None,
    world: Annotated[
        KnownWorld, typer.Option(help="planted: small and quick. synth_sae_bench: arXiv 2602.14687, scaled down.")
    ] = KnownWorld.planted,
    full: Annotated[
        bool, typer.Option("--full", help="synth_sae_bench at its published size: 200 million tokens, weeks on a CPU.")
    ] = False,
    seeds: Annotated[int, typer.Option(min=1, help="Of synth_sae_bench: how often every kind is trained.")] = 1,
    kinds: Annotated[str, typer.Option(help="Rows to train, with ';' between them [default: all].")] = "",
) -> None:
    """Train every kind of dictionary on data with known features and tabulate what each recovers.

    A run on synth_sae_bench that was stopped goes on when the same command is given again.
    """
    names = [name.strip() for name in kinds.split(";") if name.strip()] or None
    if world is KnownWorld.planted:
        if full or seeds != 1:
            raise BadInput("--full and --seeds are options of --world synth_sae_bench")
        from harness.bench.dictionaries import measure as measure_planted

        folder = out or LOCAL_RESULTS / "dictionaries"
        report = measure_planted(folder, names=names)
    else:
        from harness.bench.synth_sae_bench import FULL, SCALED, measure

        folder = out or LOCAL_RESULTS / "synth_sae_bench"
        report = measure(folder, FULL if full else SCALED, names, seeds)
    typer.echo(f"{len(report.kinds)} kinds in {report.seconds:.0f} s: {folder}/table.md")


@bench.command()
def joint(
    out: Annotated[Path, typer.Option(help="Folder of table.md and table.json.")] = LOCAL_RESULTS / "joint_controls",
    pairs: Annotated[int, typer.Option(min=20, help="Pairs of units in every planted world.")] = 200,
) -> None:
    """See what the joint metric says of planted worlds: false positives, and power by the number of contexts."""
    from harness.bench.joint_controls import measure

    report = measure(out, pairs)
    typer.echo(f"false positives at most {report.false_positives():.1%}, {report.seconds:.0f} s: {out}/table.md")


@bench.command()
def metrics(
    out: Annotated[Path, typer.Option(help="Folder of table.md and table.json.")] = LOCAL_RESULTS / "metrics",
) -> None:
    """Time the metrics at the sizes they are meant for, and tabulate time and peak memory."""
    from harness.bench.metrics import measure

    report = measure(out)
    typer.echo(f"{report.seconds:.0f} s, at most {report.peak_bytes / 2**30:.1f} GiB: {out}/table.md")


@bench.command()
def kernels(
    out: Annotated[Path, typer.Option(help="Folder of table.md and table.json.")] = LOCAL_RESULTS / "kernels",
) -> None:
    """Check, time and tabulate the kernels on this machine."""
    from kernels.bench import run

    run(out)
