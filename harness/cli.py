"""The command line. Heavy libraries are imported by the command that needs them, so that --help answers at once."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.base.errors import BadInput, HarnessError
from harness.base.files import store_root
from harness.bench.commands import bench
from harness.run.checking import check
from harness.run.looking import steer, trace
from harness.run.stopping import stop_after_a_checkpoint, stop_at_once
from harness.run.verifying import diff, verify

if TYPE_CHECKING:
    from harness.run.plan import Plan
    from harness.store.stages import Store
    from harness.tables.table import Table

# Torch's threads would spin after every operation, on cores that the numba kernels and other processes want next: with
# two of each on two cores training took several times as long. Read by OpenMP when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

app = typer.Typer(
    name="harness",
    help="Compare language models that are built readable with models that are taken apart afterwards: "
    "one budget, one interface, one table.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

app.add_typer(bench, name="bench")
app.command()(check)
app.command()(steer)
app.command()(trace)
app.command()(verify)
app.command()(diff)

log = logging.getLogger(__name__)

LOCAL_RESULTS = Path("results/local")  # what a person runs; the reference tables beside it are made with --out


@app.command()
def run(
    experiment: Annotated[str, typer.Argument(help="A name (`harness list experiments`) or the path of a .yaml file.")],
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Change one setting: systems.peer.n_experts=65536. Repeatable."
        ),
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Run seeds 0 to N−1 instead of the file's.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Results folder. Default: results/local/<comparison> (git does not see it).")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Compute every stage again, then replace the stored.")] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Write over results in --out that were made with other settings.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would run and what is stored; do nothing.")
    ] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 or auto (cuda where there is one).")] = "auto",
    dtype: Annotated[str, typer.Option(help="float32, or bfloat16 (mixed precision, on a GPU).")] = "float32",
) -> None:
    """Run a comparison: train what is missing, measure it, write table and figures.

    Everything is stored stage by stage: a killed run continues where it was, a repeated one ends in seconds.
    """
    stop_at_once()
    from harness.experiment.schema import load

    overrides = [*(set_ or []), *([f"seeds={list(range(seeds))}"] if seeds else [])]
    loaded = load(experiment, overrides)
    from harness.run import comparison
    from harness.run.device import numerics_on
    from harness.run.plan import make_plan
    from harness.run.search import made_trials
    from harness.store.stages import Store

    store = Store(store_root(), fresh=fresh)
    plan = make_plan(loaded, numerics_on(device, dtype), made_trials(store))
    if dry_run:
        _print_plan(plan, store)
        return
    stop_after_a_checkpoint()
    target = out or LOCAL_RESULTS / loaded.name
    if out and not replace:
        comparison.check_replaces_nothing(plan, out)
    table = comparison.run(plan, store, target)
    _show(table)
    _say(f"\nresults: {target}/table.md, table.csv, table.json, figures/; again: harness show {target}")


@app.command()
def plan(
    experiment: Annotated[str, typer.Argument(help="A name (`harness list experiments`) or the path of a .yaml file.")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one setting. Repeatable.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 or auto (cuda where there is one).")] = "auto",
    difference: Annotated[
        float | None, typer.Option(help="Say how many seeds resolve a difference of so much in the headline figures.")
    ] = None,
    seen: Annotated[
        Path | None, typer.Option(help="A results folder with several seeds, from which their spread is taken.")
    ] = None,
) -> None:
    """Say what every system would take, before anything is trained: size, FLOPs, memory, time here.

    Sizes that the budget leaves free are solved; a comparison that cannot be matched ends with exit status 2.
    """
    from harness.experiment.schema import load
    from harness.run.device import numerics_on
    from harness.run.estimate import estimates
    from harness.run.plan import make_plan
    from harness.run.plan_text import render_plan
    from harness.run.search import made_trials
    from harness.store.stages import Store

    store = Store(store_root())
    made = make_plan(load(experiment, set_), numerics_on(device, "float32"), made_trials(store))
    if (difference is None) != (seen is None):
        raise BadInput("--difference and --seen belong together: how much, and where seeds were seen to differ")
    for line in render_plan(made, estimates(made, store)):
        _say(line)
    if difference is not None and seen is not None:
        from harness.run.seeds import seed_lines
        from harness.tables.folder import read

        found = list(seed_lines(read(seen), made.experiment.baseline or "", made.experiment.headline, difference))
        _say("")
        for line in found or [f"{seen} has no rows with several seeds beside the baseline's"]:
            _say(line)


@app.command(name="list")
def list_(
    what: Annotated[str, typer.Argument(help="systems, metrics, corpora, judges, experiments or saes (published).")],
    text: Annotated[str, typer.Argument(help="Words that a line must have: harness list saes 'gpt2 resid'.")] = "",
) -> None:
    """List what can be named in an experiment. A release of published dictionaries by its name: the ids in it, too."""
    from harness.run.listing import KINDS, lines

    if what not in KINDS:
        from kernels.registry import nearest

        raise BadInput(f"list {what!r}: {nearest(what, list(KINDS))}")
    for line in lines(what, text):
        _say(line)


@app.command()
def show(results: Annotated[Path, typer.Argument(help="A results folder, such as results/quickstart.")]) -> None:
    """Show the table of a results folder."""
    from harness.tables.folder import read

    _show(read(results))


@app.command()
def report(
    results: Annotated[list[Path], typer.Argument(help="A results folder; with several, one page compares them.")],
    out: Annotated[
        Path | None,
        typer.Option(help="The page. Default: report.html in the folder; of several: results/local/report.html."),
    ] = None,
) -> None:
    """Make a results folder's texts, figures and page again from what it holds, or a page that sets several folders
    beside each other."""
    from harness.report import curves, figures
    from harness.report.page import compare, render
    from harness.tables.folder import read, write_texts

    if len(results) > 1:
        path = out or LOCAL_RESULTS / "report.html"
        names = [
            folder.name if [r.name for r in results].count(folder.name) == 1 else str(folder) for folder in results
        ]
        found = [compare.Named(name, read(folder)) for name, folder in zip(names, results, strict=True)]
        _say(f"page: {compare.write(found, path)}")
        return
    table = read(results[0])
    write_texts(table, results[0])
    learnt = curves.read(results[0])
    drawn = figures.drawings(table, learnt)
    # Without the curves nobody can draw training again.
    figures.write(drawn, results[0] / "figures", [] if learnt else ["training.png"])
    _say(f"page: {render.write(table, drawn, results[0], out)}")


@app.command(name="log")
def log_(results: Annotated[Path, typer.Argument(help="A results folder whose figures MLflow does not have.")]) -> None:
    """Send a results folder to MLflow that it did not get (its server was away). Nothing is sent twice."""
    from harness.report.style import marks
    from harness.tracking.later import log_results

    said = log_results(
        results, store_root(), lambda table: {system: mark.colour for system, mark in marks(table).items()}
    )
    _say(said)


@app.command()
def doctor() -> None:
    """Check this installation: each thing is ok, or what to do. Exit 0 when nothing is broken."""
    from harness.run.doctor import checks

    found = checks(store_root())
    for one in found:
        _say(f"{'ok' if one.ok else '--'}  {one.name:16}  {one.text}")
    broken = [one.name for one in found if not one.ok]
    _say(f"to mend: {', '.join(broken)}" if broken else "nothing is broken")
    raise typer.Exit(1 if broken else 0)


@app.command()
def clean(
    results: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="A results folder elsewhere than in results/, whose stages stay. Repeatable."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Remove without asking.")] = False,
) -> None:
    """Free what no results folder needs: stages, checkpoints of runs that were stopped, leftovers. Says how much first.

    What a running process uses stays.
    """
    from harness.store.clean import Cleaner, describe, size

    with Cleaner(store_root(), results or []) as cleaner:
        found = cleaner.find()
        for line in describe(found):
            _say(line)
        if not found.leftovers:
            return
        if not yes and not sys.stdin.isatty():
            raise BadInput("nothing was removed: there is no terminal to ask on; say --yes")
        if yes or typer.confirm("remove it?"):
            _say(f"{size(cleaner.remove(found))} freed")
        else:
            _say("nothing was removed")


@app.command(
    name="lm-eval", context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
)
def lm_eval(
    context: typer.Context,
    data: Annotated[Path | None, typer.Option(help="The data/ folder that the tasks metric left: its tasks.")] = None,
) -> None:
    """Hand a saved model to lm-eval's own command line, which then knows our architectures and local tasks.

    harness lm-eval --data DATA run --model hf --model_args pretrained=MODEL,backend=causal --tasks harness_cloze
    """
    from harness.metrics.tasks.command import run_lm_eval

    run_lm_eval(context.args, data)


@app.command()
def ui(
    port: Annotated[int, typer.Option(min=1, max=65535)] = 5000,
    host: Annotated[
        str, typer.Option(help="Where it listens. Other than this machine alone it asks for MLflow's own passwords.")
    ] = "127.0.0.1",
) -> None:
    """Open MLflow's interface on this machine's runs: prints where every experiment and each of its charts is."""
    from harness.tracking.server import link_lines, serving

    for stops in (signal.SIGINT, signal.SIGTERM):  # a shell's background job begins with the first one ignored
        signal.signal(stops, signal.default_int_handler)
    _say("starting MLflow's server, which takes some 20 s")
    with contextlib.suppress(KeyboardInterrupt), serving(store_root(), port, host) as running:
        for line in link_lines(store_root(), running.base):
            _say(line)
        _say(f"MLflow on {running.base} (stop with Ctrl-C)")
        running.wait()


def main() -> None:
    """Entry point: 0 done, 1 failed, 2 bad input, 75 stopped by SIGTERM and to be continued, 130 by Ctrl-C."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for noisy in (
        "httpx",
        "alembic",
        "datasets",
        "mlflow",
        "transformers",
        "urllib3",
        "accelerate",
        "numba",
        "matplotlib",
    ):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        code = app(standalone_mode=False)
    except HarnessError as error:
        log.error("error: %s", error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        code = 130
    except Exception as error:
        if not (hasattr(error, "show") and hasattr(error, "exit_code")):
            raise
        error.show()  # pyright: ignore[reportAttributeAccessIssue] (a usage error of typer's own copy of click)
        sys.exit(2)
    if code == 130:  # typer's for Ctrl-C, which it may have caught itself
        log.error("stopped; run the same command to continue")
    sys.exit(code or 0)


def _print_plan(plan: Plan, store: Store) -> None:
    stages = plan.stages()
    missing = [stage for stage in stages if store.finished(stage) is None]
    for stage in stages:
        _say(f"{'would run' if stage in missing else 'stored   '}  {stage.folder:32}  {stage.label}")
    _say(f"{len(stages) - len(missing)} of {len(stages)} stages are stored; nothing was run")


def _show(table: Table) -> None:
    from rich.console import Console

    from harness.tables.terminal import render

    render(table, Console())


def _say(line: str) -> None:
    typer.echo(line)


if __name__ == "__main__":
    main()
