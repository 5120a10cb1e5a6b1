from __future__ import annotations

import itertools

import numpy as np

from harness.metrics.joint import communities as module
from harness.metrics.joint.communities import communities


def cliques(*groups: range) -> tuple[np.ndarray, np.ndarray]:
    pairs = [pair for group in groups for pair in itertools.combinations(group, 2)]
    i, j = np.array(pairs).T
    return i, j


def test_cliques_are_communities_and_names_of_units_do_not_matter() -> None:
    i, j = cliques(range(5), range(5, 12), range(20, 24))
    i, j = np.append(i, 4), np.append(j, 5)  # one weak bridge
    weight = np.append(np.full(len(i) - 1, 2.0), 0.1)
    found = communities(i, j, weight, seed=0)
    assert [set(group.tolist()) for group in found.members] == [set(range(5, 12)), set(range(5)), set(range(20, 24))]
    assert found.edges == len(i)
    assert 0.5 < found.modularity < 0.7
    order = np.random.default_rng(0).permutation(30)
    again = communities(order[i], order[j], weight, seed=0)
    assert {frozenset(group.tolist()) for group in again.members} == {
        frozenset(order[group].tolist()) for group in found.members
    }


def test_pairs_at_or_below_chance_are_no_edges() -> None:
    i, j = cliques(range(3), range(3, 6))
    found = communities(i, j, np.array([1.0, 1, 1, 0, -1, -1]), seed=0)
    assert [group.tolist() for group in found.members] == [[0, 1, 2]]
    assert found.edges == 3
    nothing = communities(i, j, np.zeros(6), seed=0)
    assert nothing.members == []
    assert np.isnan(nothing.modularity)


def test_only_the_strongest_edges_of_a_unit_are_kept(monkeypatch) -> None:
    monkeypatch.setattr(module, "_NEIGHBOURS", 2)
    hub = np.zeros(5, np.int64), np.arange(1, 6)
    weight = np.array([1.0, 5, 2, 4, 3])
    # Each edge is the only one of its other unit, so all are kept for those; a clique has no such excuse.
    assert communities(*hub, weight, seed=0).edges == 5
    i, j = cliques(range(6))
    assert communities(i, j, np.arange(1.0, 16), seed=0).edges < 15
    monkeypatch.setattr(module, "_EDGES", 4)
    assert communities(*hub, weight, seed=0).edges == 4
