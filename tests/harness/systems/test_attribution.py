"""Graphs whose edges are known, and sums that must come out for every kind of system."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import models
from harness.systems.attribution import Graph, _Tracer, strongest, trace  # pyright: ignore[reportPrivateUsage]
from harness.systems.linear import linear
from harness.systems.system import System

from ..metrics.faithfulness.conftest import axis, silent, system, unit


@pytest.fixture
def prompt() -> torch.Tensor:
    return torch.randint(0, 31, (9,), generator=torch.Generator().manual_seed(3))


def test_the_linear_model_says_what_the_model_says(
    make_system: Callable[[torch.dtype], System], prompt: torch.Tensor
) -> None:
    of = make_system(torch.float64)
    with torch.no_grad():
        native = of.model(prompt[None], use_cache=False).logits[0]
    torch.testing.assert_close(linear(of, prompt).logits.detach(), native, rtol=1e-9, atol=1e-10)
    assert of.model.config._attn_implementation != "frozen_pattern"  # nothing stays behind
    with torch.no_grad():
        torch.testing.assert_close(of.model(prompt[None], use_cache=False).logits[0], native)


def test_what_all_nodes_do_to_a_prediction_adds_up_to_it(
    make_system: Callable[[torch.dtype], System], prompt: torch.Tensor
) -> None:
    found = linear(make_system(torch.float64), prompt)
    tracer = _Tracer(make_system(torch.float64), found)
    logits = found.logits[-1]
    for token in (0, 7):
        reading = logits[token] - logits.mean()
        assert float(tracer._edges(reading).sum()) == pytest.approx(float(reading.detach()), abs=1e-6)  # pyright: ignore


def circuit() -> System:
    """Word 0 wakes unit 1 of layer 0, which wakes unit 2 of layer 1, which says word 3. Unit 0 of layer 0 fires on
    word 0 too, and nobody listens."""
    model = silent(layers=2, units=3)
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.lm_head.weight[3, 7] = 5.0
    unit(model, 0, 0, axis(0), axis(5, 0.5))
    unit(model, 0, 1, axis(0), axis(6, 0.5))
    unit(model, 1, 2, axis(6), axis(7, 2.0))
    return system(model)


def test_a_planted_circuit_is_found_and_a_unit_that_nobody_reads_is_not() -> None:
    of = circuit()
    tokens = torch.tensor([4, 0])
    graph = trace(of, tokens, share=1.0)
    units = {
        (node.site.layer, node.unit): place
        for place, node in enumerate(graph.nodes)
        if node.kind == "unit" and node.site
    }
    assert {(0, 1), (1, 2)} <= units.keys()
    edges = {(edge.source, edge.target): edge.weight for edge in graph.edges}
    codes = of.encode(tokens[None])
    value = next(float(c.codes.values[-1]) for site, c in codes.items() if site.layer == 1)
    assert edges[units[0, 1], units[1, 2]] == pytest.approx(value, rel=1e-5)  # all that unit 2 reads
    silent_unit = units.get((0, 0))
    assert silent_unit is None or graph.nodes[silent_unit].influence == 0
    top = graph.nodes[-1] if graph.nodes[-1].kind == "prediction" else graph.nodes[0]
    assert {node.unit for node in graph.nodes if node.kind == "prediction"} >= {3}
    assert top.kind == "prediction"
    assert graph.completeness == pytest.approx(1, abs=1e-4)


def test_what_the_edges_leave_of_a_reading_is_not_explained(
    make_subject: Callable[..., models.TrunkForCausalLM], prompt: torch.Tensor
) -> None:
    """No router of ours but MONET's has a softmax alone for a coefficient: what its edges add up to is nothing."""
    straight = trace(System("", make_subject("dense-relu"), None), prompt, followed=64)
    assert straight.completeness == pytest.approx(1, abs=1e-6)
    gates = trace(System("", make_subject("monet-hd"), None), prompt, followed=64)
    assert 0 < gates.completeness < 0.9
    assert gates.replacement < 0.9


def test_likely_and_unlikely_predictions_weigh_alike_beside_units() -> None:
    """The predictions share a weight of 1, though five of many words have little probability between them."""
    tracer = _Tracer(circuit(), linear(circuit(), torch.tensor([4, 0])))
    tracer.predictions = [(token, p / 100) for token, p in tracer.predictions]
    small = tracer.graph(64, 1.0)
    assert small.completeness == pytest.approx(
        trace(circuit(), torch.tensor([4, 0]), followed=64, share=1.0).completeness
    )
    own = [tracer._own(tracer.n_sources + place, torch.zeros(0)) for place in range(len(tracer.predictions))]  # pyright: ignore
    assert sum(own) == pytest.approx(1)


def test_fewer_nodes_carry_a_smaller_share(make_system: Callable[[torch.dtype], System], prompt: torch.Tensor) -> None:
    of = make_system(torch.float64)
    small, large = (trace(of, prompt, followed=24, share=share) for share in (0.4, 0.9))
    assert len(small.nodes) <= len(large.nodes)
    assert 0 <= small.replacement <= 1
    assert 0 <= small.completeness <= 1
    assert len(strongest(large, 0.5)) <= len(strongest(large, 0.95))
    assert all(edge.source != edge.target for edge in large.edges)


def test_a_node_knows_what_it_reads_from_nodes_that_are_not_drawn(
    make_subject: Callable[..., models.TrunkForCausalLM], prompt: torch.Tensor
) -> None:
    of = System("", make_subject("dense-relu"), None)
    few, everything = (trace(of, prompt, followed=48, share=share) for share in (0.5, 1.0))

    def top(graph: Graph) -> tuple[float, float]:
        place = next(i for i, node in enumerate(graph.nodes) if node.kind == "prediction")
        return sum(abs(edge.weight) for edge in graph.edges if edge.target == place), graph.read[place]

    assert top(few)[0] < 0.95 * top(few)[1]
    assert top(everything)[0] == pytest.approx(top(everything)[1], rel=1e-4)
    assert top(few)[1] == pytest.approx(top(everything)[1], rel=1e-6)
