"""The strongest pairs of a system for a person to read: contexts side by side, and what the model says with both units,
with either and with neither. pairs.json (all of it), pairs.md and pairs.html (the same for eyes)."""

from __future__ import annotations

import html
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from harness.systems.evaluation import Evaluation

_BEFORE = 24  # tokens of text shown
STATES = ("both", "only A", "only B", "neither")


@dataclass(frozen=True)
class PairReport:
    """One pair: figures are means in bits; tokens `[shown]` count over the split, excess `[shown]`, top and probability
    `[shown, 4, likeliest]` in the order of STATES."""

    sites: tuple[str, str]
    units: tuple[int, int]
    figures: dict[str, float]
    tokens: np.ndarray
    excess: np.ndarray
    top: np.ndarray
    probability: np.ndarray


def write_pairs(evaluation: Evaluation, reports: list[PairReport], folder: Path) -> None:
    pairs = [_readable(evaluation, report) for report in reports]
    data = {"system": evaluation.system.name, "pairs": pairs}
    (folder / "pairs.json").write_text(json.dumps(data, indent=1, ensure_ascii=False), encoding="utf-8")
    (folder / "pairs.md").write_text(_markdown(evaluation.system.name, pairs), encoding="utf-8")
    (folder / "pairs.html").write_text(_html(evaluation.system.name, pairs), encoding="utf-8")


def _readable(evaluation: Evaluation, report: PairReport) -> dict[str, Any]:
    length = evaluation.split.length
    contexts = []
    for i, token in enumerate(report.tokens):
        sequence, position = divmod(int(token), length)
        batch = evaluation.split.batch(torch.tensor([sequence]))
        ids, document = batch.input_ids[0], batch.document[0]
        same = (document == document[position]).nonzero()[:, 0]
        first = max(int(same[0]), position - _BEFORE + 1)
        contexts.append(
            {
                "text": _text(evaluation, ids[first:position]),
                "token": _text(evaluation, ids[position : position + 1]),
                "excess": round(float(report.excess[i]), 4),
                "next": {
                    state: [
                        {"token": _text(evaluation, torch.tensor([outcome])), "p": round(float(p), 4)}
                        for outcome, p in zip(report.top[i, s], report.probability[i, s], strict=True)
                    ]
                    for s, state in enumerate(STATES)
                },
            }
        )
    return {
        "sites": list(report.sites),
        "units": list(report.units),
        **{name: round(value, 6) for name, value in report.figures.items()},
        "contexts": contexts,
    }


def _text(evaluation: Evaluation, ids: torch.Tensor) -> str:
    if evaluation.tokenizer is None:
        return " ".join(str(int(i)) for i in ids)
    return str(evaluation.tokenizer.decode(ids.tolist()))


def _heading(pair: dict[str, Any]) -> str:
    (site_a, site_b), (a, b) = pair["sites"], pair["units"]
    return f"A = {site_a} unit {a}, B = {site_b} unit {b}"


def _figures(pair: dict[str, Any]) -> str:
    return (
        f"excess {pair['excess']:.4f} bit (floor {pair['floor']:.4f}, p = {pair['p_value']:.2g}), "
        f"conjunction {pair['conjunction']:.4f} bit, effect {pair['effect']:.4f} bit, "
        f"a new top token in {pair['novel']:.0%} of contexts"
    )


def _said(outcomes: list[dict[str, Any]]) -> str:
    return ", ".join(f"{outcome['token']!r} {outcome['p']:.2f}" for outcome in outcomes)


def _markdown(system: str, pairs: list[dict[str, Any]]) -> str:
    lines = [f"# {system}: pairs of units of the largest excess over their floor", ""]
    for number, pair in enumerate(pairs, 1):
        lines += [f"## {number}. {_heading(pair)}", "", _figures(pair), ""]
        lines += ["| context | excess | " + " | ".join(STATES) + " |", "|---|---|" + "---|" * len(STATES)]
        for context in pair["contexts"]:
            said = [_cell(_said(context["next"][state])) for state in STATES]
            text = _cell(context["text"])
            lines.append(f"| {text}**{_cell(context['token'])}** | {context['excess']:.3f} | {' | '.join(said)} |")
        lines.append("")
    return "\n".join(lines)


def _cell(text: str) -> str:
    for sign in "\\|`*_<>[]":
        text = text.replace(sign, f"\\{sign}")
    return text.replace("\r", "␍").replace("\n", "⏎")


def _html(system: str, pairs: list[dict[str, Any]]) -> str:
    title = html.escape(f"{system}: pairs of units of the largest excess over their floor")
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>",
        "<style>body{font:15px/1.4 sans-serif;max-width:75em;margin:2em auto;padding:0 1em}table{border-collapse:"
        "collapse;width:100%}td,th{border:1px solid #ccc;padding:.3em .5em;text-align:left;vertical-align:top}"
        "mark{background:#fd6}td:first-child{width:32%;white-space:pre-wrap}</style>",
        f"<h1>{title}</h1>",
    ]
    for number, pair in enumerate(pairs, 1):
        head = "".join(f"<th>{state}</th>" for state in ("context", "excess", *STATES))
        parts.append(f"<h2>{number}. {html.escape(_heading(pair))}</h2><p>{html.escape(_figures(pair))}</p>")
        parts.append(f"<table><tr>{head}</tr>")
        for context in pair["contexts"]:
            said = "".join(f"<td>{html.escape(_said(context['next'][state]))}</td>" for state in STATES)
            text = f"{html.escape(context['text'])}<mark>{html.escape(context['token'])}</mark>"
            parts.append(f"<tr><td>{text}</td><td>{context['excess']:.3f}</td>{said}</tr>")
        parts.append("</table>")
    return "\n".join([*parts, "</html>\n"])
