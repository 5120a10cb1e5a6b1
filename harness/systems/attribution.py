"""Which units a prediction runs through: nodes and direct effects on one prompt, pruned to those that matter.

Nodes are token embeddings, units that fire, what no unit explains at a site (a dictionary's error, a side MLP, a bias),
and the likeliest next tokens. An edge is what one node's write does to another's reading in the linear model of the
prompt (linear.py); they add up to the reading where it is linear in its input. A node matters by the share of the paths
to the predictions that run through it, each reading's edges weighed by their size. [U: how nodes are picked]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from harness.systems.linear import Linear, linear
from harness.systems.system import Site, System

Kind = Literal["token", "unit", "rest", "prediction"]
MOST_PREDICTIONS, ENOUGH = 5, 0.9  # likeliest next tokens that are followed, until they have so much probability
BATCH = 16  # readings whose edges are found before influence is weighed again


@dataclass(frozen=True)
class Node:
    """site: None for tokens and predictions. position: in the prompt. unit: of a unit; the token's id of a token or
    prediction; 0 of a rest. value: the unit's coefficient, a prediction's probability. influence: share of the paths
    to the predictions through it."""

    kind: Kind
    site: Site | None
    position: int
    unit: int
    value: float
    influence: float


@dataclass(frozen=True)
class Edge:
    """Places in `Graph.nodes`; weight: the direct effect on what the target reads, in its units."""

    source: int
    target: int
    weight: float


@dataclass(frozen=True)
class Graph:
    """nodes that matter, and the edges between them. replacement: share of the paths that begin in a token and not in a
    rest, in a unit that was not followed, or in what the edges leave of a reading. completeness: share of what nodes
    read, weighed by their influence, that comes from tokens and units; a rest, and what the edges leave, does not.

    read: of the nodes whose sources were found, size of all that they read, nodes that are not here included.

    What edges leave: a reading that bends or has a bias is not the sum of its edges. A gate of MONET is a softmax,
    whose edges add up to nothing: without it such a unit would look explained in full."""

    tokens: tuple[int, ...]
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    replacement: float
    completeness: float
    read: Mapping[int, float]


def trace(system: System, tokens: Tensor, *, followed: int = 128, share: float = 0.8) -> Graph:
    """followed: readings whose sources are found, predictions and units; share: of the influence that is kept."""
    return _Tracer(system, linear(system, tokens)).graph(followed, share)


class _Tracer:
    """Sources in one vector: token embeddings, then of every site its units' entries and its rests, by position."""

    def __init__(self, system: System, prompt: Linear) -> None:
        self.system, self.prompt = system, prompt
        self.length = len(prompt.tokens)
        self.starts: dict[Site | None, int] = {None: 0}
        at = self.length
        self.writes: dict[Site, Tensor] = {}
        self.rests: dict[Site, Tensor] = {}
        for site in system.sites:
            self.starts[site] = at
            codes = prompt.codes[site]
            with torch.no_grad():
                entries = torch.arange(codes.nnz, device=codes.units.device)
                each = system.decomposition[site].writes(codes, prompt.read[site], entries)
                writes = each * codes.values.detach()[:, None]
                told = torch.zeros_like(prompt.written[site]).index_add(0, codes.token_of_entry(), writes)
            self.writes[site], self.rests[site] = writes, prompt.written[site].detach() - told
            at += codes.nnz + self.length
        self.n_sources = at
        self.is_unit, self.is_rest = torch.zeros(at, dtype=torch.bool), torch.zeros(at, dtype=torch.bool)
        for site in system.sites:
            first, nnz = self.starts[site], prompt.codes[site].nnz
            self.is_unit[first : first + nnz] = True
            self.is_rest[first + nnz : first + nnz + self.length] = True
        self.rows: dict[int, Tensor] = {}  # reading → edges from all sources; predictions are numbered from n_sources
        self.left: dict[int, float] = {}  # reading → size of what its edges leave of it
        self.predictions = self._predictions()

    def _predictions(self) -> list[tuple[int, float]]:
        likely = self.prompt.logits[-1].detach().softmax(-1).sort(descending=True)
        found: list[tuple[int, float]] = []
        for p, token in zip(likely.values[:MOST_PREDICTIONS].tolist(), likely.indices.tolist(), strict=False):
            found.append((token, p))
            if sum(q for _, q in found) >= ENOUGH:
                break
        return found

    def graph(self, followed: int, share: float) -> Graph:
        for place, (token, _) in enumerate(self.predictions):
            logits = self.prompt.logits[-1]
            self._follow(self.n_sources + place, logits[token] - logits.mean())
        influence = self._influence()
        while len(self.rows) < followed:
            most = (influence * self._unread()).topk(min(BATCH, followed - len(self.rows), self.n_sources))
            waiting = most.indices[most.values > 0].tolist()
            if not waiting:
                break
            for source in waiting:
                site, entry = self._unit(source)
                self._follow(source, self.prompt.codes[site].values[entry])
            influence = self._influence()
        return self._pruned(influence, share)

    def _follow(self, number: int, reading: Tensor) -> None:
        self.rows[number] = self._edges(reading)
        self.left[number] = abs(float(reading.detach()) - float(self.rows[number].sum()))

    def _read(self, reading: int) -> float:
        """Size of all that a reading is made of."""
        return max(float(self.rows[reading].abs().sum()) + self.left[reading], 1e-30)

    def _own(self, reading: int, influence: Tensor) -> float:
        """Influence of a reading; predictions share 1 by their probability."""
        if reading < self.n_sources:
            return float(influence[reading])
        return self.predictions[reading - self.n_sources][1] / sum(p for _, p in self.predictions)

    def _edges(self, reading: Tensor) -> Tensor:
        """What every source does to one reading. `[sources]`"""
        places = list(self.prompt.written)
        if not reading.requires_grad:
            return torch.zeros(self.n_sources)
        leaves = [self.prompt.written[place] for place in places]
        found = torch.autograd.grad(reading, leaves, retain_graph=True, allow_unused=True)
        edges = torch.zeros(self.n_sources)
        for place, gradient in zip(places, found, strict=True):
            if gradient is None:
                continue
            start = self.starts[place]
            if place is None:
                edges[: self.length] = (gradient * self.prompt.written[None].detach()).sum(-1)
                continue
            codes = self.prompt.codes[place]
            units = (self.writes[place] * gradient[codes.token_of_entry()]).sum(-1)
            edges[start : start + codes.nnz] = units
            edges[start + codes.nnz : start + codes.nnz + self.length] = (self.rests[place] * gradient).sum(-1)
        return edges

    def _influence(self) -> Tensor:
        """Of every source; readings are taken from the latest on, so that each is complete when it is passed on."""
        influence = torch.zeros(self.n_sources)
        for reading in sorted(self.rows, reverse=True):
            influence += self._own(reading, influence) * self.rows[reading].abs() / self._read(reading)
        return influence

    def _unread(self) -> Tensor:
        """Units whose own sources have not been found. `[sources]`"""
        unread = self.is_unit.clone()
        unread[[reading for reading in self.rows if reading < self.n_sources]] = False
        return unread

    def _site(self, source: int) -> Site:
        return next(site for site in reversed(self.system.sites) if source >= self.starts[site])

    def _unit(self, source: int) -> tuple[Site, int]:
        site = self._site(source)
        return site, source - self.starts[site]

    def _node(self, source: int, influence: float) -> Node:
        if source >= self.n_sources:
            token, p = self.predictions[source - self.n_sources]
            return Node("prediction", None, self.length - 1, token, p, p)
        if source < self.length:
            return Node("token", None, source, int(self.prompt.tokens[source]), 1.0, influence)
        site, entry = self._unit(source)
        codes = self.prompt.codes[site]
        if self.is_rest[source]:
            return Node("rest", site, entry - codes.nnz, 0, 1.0, influence)
        token = int(codes.token_of_entry()[entry])
        return Node("unit", site, token, int(codes.units[entry]), float(codes.values[entry].detach()), influence)

    def _pruned(self, influence: Tensor, share: float) -> Graph:
        ends = ~self.is_unit | self._unread()
        weights = {reading: self._own(reading, influence) for reading in self.rows}
        left = sum(own * self.left[r] / self._read(r) for r, own in weights.items())
        begun = influence * ends
        tokens = float(begun[: self.length].sum() / (begun.sum() + left).clamp_min(1e-30))
        told = {
            r: 1 - (float(row.abs()[self.is_rest].sum()) + self.left[r]) / self._read(r) for r, row in self.rows.items()
        }
        completeness = sum(weights[r] * told[r] for r in weights) / max(1e-30, sum(weights.values()))
        order = influence.argsort(descending=True)
        enough = int((influence[order].cumsum(0) < share * influence.sum()).sum()) + 1
        kept = [*sorted(order[:enough].tolist()), *range(self.n_sources, self.n_sources + len(self.predictions))]
        place = {source: number for number, source in enumerate(kept)}
        edges = [
            Edge(place[source], place[reading], float(row[source]))
            for reading, row in self.rows.items()
            if reading in place
            for source in kept
            if source < self.n_sources and row[source] != 0
        ]
        nodes = [self._node(source, float(influence[source]) if source < self.n_sources else 0.0) for source in kept]
        read = {place[reading]: self._read(reading) for reading in self.rows if reading in place}
        return Graph(tuple(self.prompt.tokens.tolist()), tuple(nodes), tuple(edges), tokens, completeness, read)


def strongest(graph: Graph, share: float) -> Sequence[Edge]:
    """Of the edges into every node, from nodes that are here, the largest that together are so much of them: less of
    what the node reads (`Graph.read`)."""
    by_target: dict[int, list[Edge]] = {}
    for edge in graph.edges:
        by_target.setdefault(edge.target, []).append(edge)
    found: list[Edge] = []
    for into in by_target.values():
        total, seen = sum(abs(edge.weight) for edge in into), 0.0
        for edge in sorted(into, key=lambda edge: -abs(edge.weight)):
            if seen >= share * total:
                break
            found.append(edge)
            seen += abs(edge.weight)
    return found
