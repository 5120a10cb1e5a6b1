"""Curves of training, thinned to what a figure can show, kept with the results so that a page can be made again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from harness.base.files import write_atomically

FILE = "curves.json"
MOST = 60  # points of a curve
# What is drawn, as training writes it; and what the axis says.
SHOWN = {
    "loss": "training loss",
    "explained_variance": "explained variance",
    "l0": "active latents a token (L0)",
    "dead_share": "dead share",
}


class Curve(BaseModel):
    """One subject, or one dictionary at a `site`. `points`: name -> mean over a stretch of steps, beside `tokens`."""

    model_config = ConfigDict(extra="forbid")

    system: str
    seed: int
    site: str
    tokens: list[float]
    points: dict[str, list[float]]


Source = tuple[str, int, str]  # system, seed, site; no site: the subject


def collect(sources: Mapping[Source, Path]) -> list[Curve]:
    """Of every curve.jsonl that is there and has lines."""
    found = []
    for (system, seed, site), path in sources.items():
        rows = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
        if rows:
            tokens = _thinned([row["tokens"] for row in rows])
            points = {name: _thinned([row[name] for row in rows]) for name in SHOWN if all(name in row for row in rows)}
            found.append(Curve(system=system, seed=seed, site=site, tokens=tokens, points=points))
    return found


def write(curves: list[Curve], results: Path) -> None:
    text = json.dumps([curve.model_dump() for curve in curves], separators=(",", ":"))
    write_atomically(results / FILE, text.encode())


def read(results: Path) -> list[Curve]:
    """Those that a results folder keeps; none where an older run made it."""
    path = results / FILE
    return [Curve.model_validate(one) for one in json.loads(path.read_text())] if path.is_file() else []


def _thinned(values: list[float]) -> list[float]:
    """Means of equal stretches, to six significant digits."""
    n = min(MOST, len(values))
    edges = [len(values) * i // n for i in range(n + 1)]
    means = (sum(values[a:b]) / (b - a) for a, b in pairwise(edges))
    return [float(f"{mean:.6g}") for mean in means]
