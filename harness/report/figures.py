"""The figures of a comparison, from its table and training curves: PNGs for people, one HTML for hovering.

The same table gives the same bytes: no dates, no random layout.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from harness.base.files import write_atomically
from harness.base.row_name import RowName
from harness.report import dictionary_sweep, joint, kept
from harness.report.style import COLOURS, GREY, MARKERS, error
from harness.tables.table import Row, Table

LOSS = "loss/bits_per_byte"
SPLICED = "loss/spliced_bits_per_byte"
STRENGTH = "sparsity/strength_l0_total"
FLOPS = "cost/training_flops"

ONE_BAR_A_ROW = ("bits_per_byte", "usage", "joint_excess", "joint_conjunction")
# With more rows than this, systems that differ in brackets only share a colour, and a legend takes the place of labels.
LABELLED_ROWS = 14

Curves = Mapping[tuple[str, int], Path]


def write(table: Table, folder: Path, curves: Curves) -> list[Path]:
    """Every figure that the table has the figures for, into `folder`; those of an earlier run that it has not, go."""
    draw: dict[str, Callable[[Axes], bool]] = {
        "loss_against_sparsity": lambda axes: _scatter(
            axes, table, STRENGTH, "units that carry 95% of what is written"
        ),
        "loss_against_kept": lambda axes: kept.against_k(axes, table),
        "loss_against_compute": lambda axes: _scatter(axes, table, FLOPS, "training compute (FLOP)"),
        "bits_per_byte": lambda axes: _losses(axes, table),
        "usage": lambda axes: _usage(axes, table),
        "dictionary_error": lambda axes: dictionary_sweep.against_l0(
            axes, table, dictionary_sweep.ERROR, "normalised MSE (lower is better)"
        ),
        "dictionary_variance": lambda axes: dictionary_sweep.against_l0(
            axes, table, dictionary_sweep.VARIANCE, "explained variance (higher is better)"
        ),
        "dictionary_waste": lambda axes: dictionary_sweep.wasted(axes, table),
        "joint_excess": lambda axes: joint.beside_floor(
            axes, table, joint.SHARE, joint.FLOOR_SHARE, "excess, share of what the pair says"
        ),
        "joint_conjunction": lambda axes: joint.beside_floor(
            axes, table, joint.CONJUNCTION, joint.FLOOR_CONJUNCTION, "conjunction (bits)"
        ),
        "joint_against_active": lambda axes: joint.against_active(axes, table),
        "training": lambda axes: _training(axes, table, curves),
    }
    written = []
    for name, drawing in draw.items():
        path = folder / f"{name}.png"
        tall = max(4.2, 0.32 * len(table.rows)) if name in ONE_BAR_A_ROW else 4.2
        figure, axes = plt.subplots(figsize=(7.2, tall), layout="constrained")
        if drawing(axes):
            axes.spines[["top", "right"]].set_visible(False)
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
            write_atomically(path, buffer.getvalue())
            written.append(path)
        else:
            path.unlink(missing_ok=True)
        plt.close(figure)
    html = folder / "overview.html"
    write_atomically(html, _overview(table).encode())
    return [*written, html]


def _systems(table: Table, *metrics: str) -> list[Row]:
    return [row for row in table.rows if row.kind != "reference" and all(name in row.metrics for name in metrics)]


def _style(table: Table) -> dict[str, tuple[str, str]]:
    """Colour and marker of every system, the same in all figures."""
    names = [row.system for row in table.rows if row.kind != "reference"]
    groups = {name: _family(name) if len(names) > LABELLED_ROWS else name for name in names}
    places = {group: i for i, group in enumerate(dict.fromkeys(groups.values()))}
    return {
        # Once all colours are used, the next round has each with another marker.
        name: (COLOURS[place % len(COLOURS)], MARKERS[(place + place // len(COLOURS)) % len(MARKERS)])
        for name, place in ((name, places[group]) for name, group in groups.items())
    }


def _family(system: str) -> str:
    """A system's name without what stands in brackets last."""
    said = RowName.of(system)
    return said.subject.name if said.dictionary is None else f"{said.subject}+{said.dictionary.name}"


def _references(axes: Axes, table: Table) -> None:
    """What counting reaches, as lines; unigrams are so far off that they would squeeze the rest."""
    for row in table.rows:
        if row.kind == "reference" and row.system != "unigram":
            value = row.metrics[LOSS].value
            axes.axhline(value, color=GREY, linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
            axes.annotate(
                row.system,
                (1, value),
                xycoords=("axes fraction", "data"),
                ha="right",
                va="bottom",
                color=GREY,
                fontsize=8,
            )


def _scatter(axes: Axes, table: Table, x: str, label: str) -> bool:
    rows = _systems(table, x, SPLICED)
    if not rows:
        return False
    style = _style(table)
    named: set[str] = set()
    for row in rows:
        colour, marker = style[row.system]
        at, loss = row.metrics[x], row.metrics[SPLICED]
        axes.errorbar(
            at.value,
            loss.value,
            xerr=error(at),
            yerr=error(loss),
            color=colour,
            marker=marker,
            capsize=2,
            markersize=7,
        )
        family = _family(row.system)
        if len(rows) <= LABELLED_ROWS:
            axes.annotate(row.system, (at.value, loss.value), xytext=(8, 6), textcoords="offset points", color=colour)
        elif family not in named:
            named.add(family)
            axes.plot([], [], color=colour, marker=marker, linestyle="", label=family)
    if named:
        axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    _references(axes, table)
    axes.set_xscale("log")
    axes.margins(x=0.25, y=0.15)
    unit = rows[0].metrics[x].unit
    axes.set_xlabel(f"{label}: {unit}, all layers" if x == STRENGTH else label)
    axes.set_ylabel("bits per byte, running through its units")
    axes.set_title(f"{table.comparison}: down and left is better", fontsize=10, loc="left")
    return True


def _losses(axes: Axes, table: Table) -> bool:
    rows = [row for row in table.rows if LOSS in row.metrics]
    if not rows:
        return False
    style = _style(table)
    labels: list[str] = []
    for row in rows:
        colour = style.get(row.system, (GREY, ""))[0]
        bars = [(row.system, row.metrics[LOSS])]
        if row.kind == "dictionary" and SPLICED in row.metrics:
            bars = [(f"{row.system}\nspliced", row.metrics[SPLICED])]  # its native loss is its subject's
        for label, figure in bars:
            axes.barh(len(labels), figure.value, xerr=error(figure), color=colour, height=0.65, capsize=2)
            axes.annotate(
                f"{figure.value:.3f}",
                (0, len(labels)),
                xytext=(6, 0),
                textcoords="offset points",
                va="center",
                color="white",
            )
            labels.append(label)
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.set_xlabel("bits per byte on the evaluation text (lower is better)")
    return True


def _usage(axes: Axes, table: Table) -> bool:
    rows = _systems(table, "usage/dead", "usage/always_on")
    if not rows:
        return False
    parts = (
        ("usage/dead", "dead", COLOURS[6]),
        ("usage/rare", "rare", COLOURS[4]),
        ("usage/always_on", "always on", COLOURS[5]),
    )
    height = 0.8 / len(parts)
    for offset, (metric, label, colour) in enumerate(parts):
        for position, row in enumerate(rows):
            if metric in row.metrics:
                figure = row.metrics[metric]
                axes.barh(
                    position + (offset - 1) * height,
                    100 * figure.value,
                    height=height,
                    color=colour,
                    label=label if position == 0 else None,
                )
                axes.annotate(
                    f"{100 * figure.value:.1f}%",
                    (100 * figure.value, position + (offset - 1) * height),
                    xytext=(4, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=8,
                )
    tokens = rows[0].metrics.get("usage/tokens")
    axes.set_yticks(range(len(rows)), [row.system for row in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, 112)
    axes.set_xlabel("share of units (%)" + (f", over {tokens.value:,.0f} held-out tokens" if tokens else ""))
    axes.legend(frameon=False, loc="lower right")
    return True


def _training(axes: Axes, table: Table, curves: Curves) -> bool:
    style = _style(table)
    lowest, drawn = float("inf"), set()
    for (system, _seed), path in curves.items():
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        if not rows:
            continue
        losses = [row["loss"] for row in rows]
        axes.plot(
            [row["tokens"] for row in rows],
            losses,
            color=style[system][0],
            linewidth=1.3,
            label=None if system in drawn else system,
        )
        drawn.add(system)
        lowest = min(lowest, *losses)
    if not drawn:
        return False
    axes.set_xlabel("training tokens")
    axes.set_ylabel("training loss (nats per token)")
    axes.legend(frameon=False)
    return True


def _overview(table: Table) -> str:
    """Loss against sparsity as one self-contained page, with every figure of a system on hovering."""
    import plotly.graph_objects as go

    plot = go.Figure()
    style = _style(table)
    for row in _systems(table, STRENGTH, SPLICED):
        text = "<br>".join(f"{name}: {figure.value:.4g} {figure.unit}" for name, figure in row.metrics.items())
        bar: dict[str, Any] = {}
        if (ends := error(row.metrics[SPLICED])) is not None:
            bar = {"error_y": {"type": "data", "array": ends[1], "arrayminus": ends[0]}}
        plot.add_trace(
            go.Scatter(
                x=[row.metrics[STRENGTH].value],
                y=[row.metrics[SPLICED].value],
                name=row.system,
                mode="markers",
                marker={"size": 12, "color": style[row.system][0]},
                hovertext=[text],
                **bar,
            )
        )
    for row in table.rows:
        if row.kind == "reference" and row.system != "unigram":
            plot.add_hline(y=row.metrics[LOSS].value, line_dash="dash", annotation_text=row.system)
    plot.update_layout(
        title=table.comparison,
        xaxis={"title": "units that carry 95% of what is written, per token, all layers", "type": "log"},
        yaxis={"title": "bits per byte, running through its units"},
    )
    return plot.to_html(include_plotlyjs=True, full_html=True, div_id="overview")
