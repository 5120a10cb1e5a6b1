"""The drawing of an attribution graph: one self-contained page, the same for either road."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
from markupsafe import Markup

from harness.base.files import write_atomically
from harness.report.style import COLOURS, GREY
from harness.systems.attribution import Edge, Graph, Node, strongest

RAISES, LOWERS = COLOURS[0], COLOURS[1]
_HERE = Path(__file__).parent
_LEFT, _COLUMN, _ROW, _TOP = 110, 96, 96, 50  # pixels
_SMALL, _LARGE = 4.0, 15.0  # radius of a node


@dataclass(frozen=True)
class _Placed:
    x: float
    y: float
    radius: float


def page(graph: Graph, system: str, words: Sequence[str], name: Callable[[Node], str], share: float) -> str:
    """words: the tokens of the prompt as they are shown; name: what a node is called; share: of the edges into every
    node that is drawn."""
    levels = sorted({node.site for node in graph.nodes if node.site is not None})
    rows = ["prediction", *(str(site) for site in reversed(levels)), "token"]
    placed = _placed(graph, rows)
    edges = strongest(graph, share)
    width = _LEFT + _COLUMN * len(graph.tokens) + 20
    texts = [name(node) for node in graph.nodes]
    says = (
        f"Direct effects on one prompt, attention and norms held still. {graph.replacement:.0%} of the paths to the "
        f"predictions begin in tokens, the rest in what no unit explains or was not followed; units and tokens explain "
        f"{graph.completeness:.0%} of what is read. {len(graph.nodes)} nodes, {len(edges)} edges."
    )
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(_HERE), autoescape=True)
    return environment.get_template("trace.html").render(
        title=f"What {system} says next, and through which units",
        says=says,
        css=Markup((_HERE / "page" / "page.css").read_text()),
        colours={"raises": RAISES, "lowers": LOWERS},
        width=width,
        height=_TOP + _ROW * len(rows),
        left=_LEFT,
        rows=[{"name": row, "y": _TOP + _ROW * place} for place, row in enumerate(rows)],
        edges=[_edge(graph, placed, edge) for edge in edges],
        nodes=[
            {"path": _shape(node, at), "colour": _colour(node), "text": text}
            for node, at, text in zip(graph.nodes, placed, texts, strict=True)
        ],
        words=[
            {"x": _LEFT + _COLUMN * (place + 0.5), "y": _TOP + _ROW * (len(rows) - 1) + 34, "text": word}
            for place, word in enumerate(words)
        ]
        + [
            {"x": at.x, "y": at.y - at.radius - 4 - 13 * (order % 2), "text": text}
            for order, (node, at, text) in enumerate(zip(graph.nodes, placed, texts, strict=True))
            if node.kind == "prediction"
        ],
        texts=Markup(json.dumps(texts).replace("<", "\\u003c")),
    )


def write(text: str, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.encode())
    return path


def _placed(graph: Graph, rows: Sequence[str]) -> list[_Placed]:
    """Column by position, row by site; nodes of one cell side by side."""
    cells: dict[tuple[int, str], list[int]] = {}
    for place, node in enumerate(graph.nodes):
        cells.setdefault((node.position, _row(node)), []).append(place)
    largest = max((node.influence for node in graph.nodes), default=0.0) or 1.0
    found = [_Placed(0, 0, 0)] * len(graph.nodes)
    for (position, row), members in cells.items():
        for order, place in enumerate(members):
            x = _LEFT + _COLUMN * (position + (order + 1) / (len(members) + 1))
            y = _TOP + _ROW * rows.index(row) + 9 * (order % 3 - 1) * (len(members) > 2)
            radius = _SMALL + (_LARGE - _SMALL) * (graph.nodes[place].influence / largest) ** 0.5
            found[place] = _Placed(round(x, 1), round(y, 1), round(radius, 1))
    return found


def _row(node: Node) -> str:
    return node.kind if node.site is None else str(node.site)


def _colour(node: Node) -> str:
    return {"unit": COLOURS[2], "rest": GREY, "token": COLOURS[3], "prediction": COLOURS[3]}[node.kind]


def _shape(node: Node, at: _Placed) -> str:
    x, y, r = at.x, at.y, at.radius
    if node.kind == "unit":
        return f"M{x - r} {y}a{r} {r} 0 1 0 {2 * r} 0a{r} {r} 0 1 0 {-2 * r} 0Z"
    if node.kind == "rest":
        return f"M{x - r} {y - r}h{2 * r}v{2 * r}h{-2 * r}Z"
    return f"M{x} {y - r}L{x + r} {y + r}L{x - r} {y + r}Z"


def _edge(graph: Graph, placed: Sequence[_Placed], edge: Edge) -> dict[str, object]:
    a, b = placed[edge.source], placed[edge.target]
    middle = (a.y + b.y) / 2
    return {
        "source": edge.source,
        "target": edge.target,
        "path": f"M{a.x} {a.y}C{a.x} {middle} {b.x} {middle} {b.x} {b.y}",
        "colour": RAISES if edge.weight > 0 else LOWERS,
        "width": round(0.4 + 6 * abs(edge.weight) / graph.read[edge.target], 2),
        "weight": f"{edge.weight:+.3g}",
    }
