"""`harness steer` and `harness trace`: one unit, or one prompt, of a row that was run. What they need, they import
themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.base.files import store_root


def steer(
    system: Annotated[str, typer.Argument(help="A row of the experiment, such as dense+topk.")],
    unit: Annotated[str, typer.Argument(help="Layer and number of the unit: 1:345.")],
    prompt: Annotated[str, typer.Option(help="What the text begins with.")] = "",
    value: Annotated[float | None, typer.Option(help="What the unit is held at. Default: high, for this unit.")] = None,
    tokens: Annotated[int, typer.Option(min=1, help="How many tokens are written.")] = 40,
    experiment: Annotated[
        str, typer.Option(help="A name or the path of a .yaml file; it must have been run.")
    ] = "quickstart",
    seed: Annotated[int, typer.Option(help="Which seed of the row.")] = 0,
    draw: Annotated[
        int | None, typer.Option(help="Draw tokens with this seed. Default: the likeliest each time.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 or auto (cuda where there is one).")] = "auto",
) -> None:
    """Hold one unit at a value and let the model write, beside what it writes by itself."""
    from harness.run.device import numerics_on
    from harness.run.opened import open_row
    from harness.run.steering import steer as lines
    from harness.store.stages import Store

    opened = open_row(experiment, system, seed, numerics_on(device, "float32"), Store(store_root()))
    for line in lines(opened, unit, value, prompt, tokens, draw):
        typer.echo(line)


def trace(
    system: Annotated[str, typer.Argument(help="A row of the experiment, such as dense+topk.")],
    prompt: Annotated[str, typer.Option(help="The text whose next token is explained.")],
    out: Annotated[Path, typer.Option(help="The page.")] = Path("results/local/trace.html"),
    share: Annotated[
        float,
        typer.Option(
            min=0.1, max=1.0, help="Share of the paths that is kept, and of the edges into each node that is drawn."
        ),
    ] = 0.8,
    followed: Annotated[int, typer.Option(min=1, help="Units whose sources are found.")] = 128,
    experiment: Annotated[
        str, typer.Option(help="A name or the path of a .yaml file; it must have been run.")
    ] = "quickstart",
    seed: Annotated[int, typer.Option(help="Which seed of the row.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 or auto (cuda where there is one).")] = "auto",
) -> None:
    """Draw which units the next token of a prompt runs through, and what each adds to what."""
    from harness.run.device import numerics_on
    from harness.run.opened import open_row
    from harness.run.tracing import write_trace
    from harness.store.stages import Store

    opened = open_row(experiment, system, seed, numerics_on(device, "float32"), Store(store_root()))
    path, graph = write_trace(opened, prompt, followed, share, out)
    typer.echo(f"{len(graph.nodes)} nodes; replacement {graph.replacement:.0%}, completeness {graph.completeness:.0%}")
    typer.echo(f"page: {path}")
