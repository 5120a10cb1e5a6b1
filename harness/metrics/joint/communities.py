"""Groups of units that fire together: communities of the graph whose edges are pairs beyond the null."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_EDGES = 50_000  # at most: the library's Louvain is Python
_NEIGHBOURS = 16  # of one unit, its strongest


@dataclass(frozen=True)
class Communities:
    """members: units of every community of two or more, largest first (then by the first unit); modularity: of this
    partition on the graph's weights; edges: of the graph."""

    members: list[np.ndarray]
    modularity: float
    edges: int


def communities(i: np.ndarray, j: np.ndarray, weight: np.ndarray, seed: int) -> Communities:
    """Louvain (networkx) on the edges (i, j) `[pairs]` of positive weight, log₂ lift here: of each unit's edges only
    its _NEIGHBOURS strongest, and of all only the _EDGES strongest. No edges: no communities, modularity nan."""
    import networkx as nx

    kept = _strongest(i, j, weight)
    if not len(kept):
        return Communities([], float("nan"), 0)
    graph = nx.Graph()
    graph.add_weighted_edges_from(zip(i[kept].tolist(), j[kept].tolist(), weight[kept].tolist(), strict=True))
    found = nx.community.louvain_communities(graph, seed=seed)
    members = [np.array(sorted(group)) for group in found if len(group) > 1]
    members.sort(key=lambda group: (-len(group), group[0]))
    return Communities(members, float(nx.community.modularity(graph, found)), len(kept))


def _strongest(i: np.ndarray, j: np.ndarray, weight: np.ndarray) -> np.ndarray:
    order = np.argsort(-weight, kind="stable")
    order = order[weight[order] > 0]
    unit = np.concatenate([i[order], j[order]])
    strength = np.concatenate([np.arange(len(order))] * 2)
    by_unit = np.lexsort((strength, unit))
    ptr = np.searchsorted(unit[by_unit], unit[by_unit])  # where each unit's own edges begin
    rank = np.empty(len(unit), np.int64)
    rank[by_unit] = np.arange(len(unit)) - ptr
    among = (rank[: len(order)] < _NEIGHBOURS) | (rank[len(order) :] < _NEIGHBOURS)
    return order[among][:_EDGES]
