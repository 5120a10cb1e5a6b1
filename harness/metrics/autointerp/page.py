"""The units of a system as a page to leaf through, made from the parquet file: what was said of each, how it scored
beside its controls, and the contexts that it was explained from and scored on."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_SHOWN = 8  # contexts of a kind
_STYLE = (
    "body{font:15px/1.45 sans-serif;max-width:70em;margin:2em auto;padding:0 1em}"
    "details{border-top:1px solid #ccc;padding:.4em 0}summary{cursor:pointer}"
    "pre{white-space:pre-wrap;margin:.15em 0;font-size:13px}mark{background:#fd6}.n{color:#666;font-size:13px}"
)


def write(units_file: Path, page: Path, system: str) -> None:
    """Units by their score, the best first. All text in it comes from the corpus or a judge: it is escaped."""
    import pyarrow.parquet

    found = pyarrow.parquet.read_table(units_file).to_pylist()
    page.write_text("\n".join(_page(found, system)), encoding="utf-8")


def _page(found: list[dict[str, Any]], system: str) -> Iterator[str]:
    names = list(found[0])
    scores = names[names.index("by") + 1 : names.index("promoted")]  # the main one first
    title = html.escape(f"{system}: {len(found)} units" + (f" by {scores[0]}" if scores else ""))
    yield f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{_STYLE}</style>"
    yield f"<h1>{title}</h1>"
    if scores:
        found = sorted(found, key=lambda row: -1.0 if row[scores[0]] is None else row[scores[0]], reverse=True)
    for row in found:
        yield from _unit(row, scores)
    yield "</html>"


def _unit(row: Mapping[str, Any], scores: list[str]) -> Iterator[str]:
    figures = [f"{name} {row[name]:.2f}" for name in scores if row[name] is not None]
    best = "–" if not scores or row[scores[0]] is None else f"{row[scores[0]]:.2f}"
    where = html.escape(f"{row['site']}, unit {row['unit']}, on {row['density']:.2%} of tokens")
    yield f"<details><summary><b>{best}</b> {html.escape(row['explanation'])} <span class=n>{where}</span></summary>"
    yield f"<p class=n>{html.escape(', '.join(figures))}</p>"
    if row["promoted"]:
        yield f"<p class=n>promotes {_tokens(row['promoted'])}; suppresses {_tokens(row['suppressed'])}</p>"
    for name, title in (
        ("explain", "explained from"),
        ("score", "scored on"),
        ("near_misses", "near misses: silent"),
        ("same_token", "on its tokens, and silent"),
        ("score_silent", "silent"),
    ):
        if row[name]:
            yield f"<p>{title}</p>"
            yield from (f"<pre>{_marked(text)}</pre>" for text in row[name][:_SHOWN])
    yield "</details>"


def _tokens(tokens: list[str]) -> str:
    return html.escape(" ".join(repr(token) for token in tokens))


def _marked(text: str) -> str:
    """«» stand around tokens that the unit fires on (output.marked)."""
    return html.escape(text).replace("«", "<mark>").replace("»", "</mark>")
