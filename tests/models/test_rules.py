"""A layer that is not what it says is told, with its place, the rule, and what was seen."""

from __future__ import annotations

import re
from collections.abc import Callable
from types import MethodType
from typing import Any

import pytest
import torch
from torch import Tensor

import models
from kernels.codes import Codes
from models import TrunkForCausalLM, rules

VOCAB, LENGTH = 64, 24
SMALL = {"d_model": 32, "n_layers": 2, "n_heads": 2, "vocab_size": VOCAB, "max_position_embeddings": 32}
SMALLER = {"peer": {"n_experts": 64, "heads": 2, "k": 4, "d_key": 8}, "pools": {"experts_per_pool": 16, "d_key": 8}}


def model(name: str = "dense", dtype: torch.dtype = torch.float32) -> TrunkForCausalLM:
    torch.manual_seed(0)
    made = models.build(name, **{**SMALL, **SMALLER.get(name, {})}).to(dtype)  # pyright: ignore[reportCallIssue, reportArgumentType]
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made


def tokens() -> Tensor:
    return torch.randint(VOCAB, (2, LENGTH), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", list(models.ARCHITECTURES))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_every_architecture_keeps_all_rules(name: str, dtype: torch.dtype) -> None:
    assert rules.broken(model(name, dtype), tokens()) is None


def changed(layer: Any, method: str, change: Callable[..., Any]) -> None:
    """`change(true, *args)` in the place of a method of this layer, where `true` is the method."""
    true = getattr(layer, method)
    setattr(layer, method, MethodType(lambda _self, *args: change(true, *args), layer))


def with_values(change: Callable[[Tensor], Tensor]) -> Callable[..., Codes]:
    return lambda true, x, rows: (codes := true(x, rows)).with_values(change(codes.values))


def leaking(true: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """What tokens see of the one after them."""
    return true(x) + 0.1 * x.roll(-1, 0)


def backwards(true: Callable[..., Codes], x: Tensor, rows: Tensor) -> Codes:
    codes = true(x, rows)
    units = codes.units.view(codes.n_tokens, -1).flip(1).flatten()
    return Codes(codes.indptr, units, codes.values, codes.rows, codes.n_units)


WRONG: list[tuple[str, Callable[..., Any], str]] = [
    ("read", with_values(lambda v: 2 * v), r"1 \(Dense\): fused\(x\) = write\(read\(x\), x\) \+ rest\(x\); .*norms"),
    ("read", with_values(lambda v: torch.full_like(v, torch.nan)), "codes are finite; seen: .* NaN"),
    ("read", with_values(torch.zeros_like), r"fused\(x\) = write"),
    ("read", backwards, "units of a token ascend"),
    ("read", lambda true, x, rows: true(x, rows.flip(0)), "read passes its rows through"),
    ("write", lambda true, codes, x: 0.5 * true(codes, x), r"fused\(x\) = write"),
    ("write", lambda true, codes, x: true(codes, x).relu(), r"fused\(x\) = write|linear"),
    ("fused", leaking, "no token sees a later one"),
    ("fused", lambda true, x: true(x) * torch.nan, "what a layer writes is finite; seen: 48 of 48 tokens NaN"),
    ("flops_per_token", lambda true: 0, "flops_per_token is what the matrix products take.*0 said, .* counted .*mm"),
    ("flops_per_token", lambda true: 2 * true(), "within 2%"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "change", "said"), WRONG)
def test_a_wrong_layer_is_named_with_the_rule_that_it_breaks(
    method: str, change: Callable[..., Any], said: str
) -> None:
    made = model()
    changed(made.feed_forwards()[1], method, change)
    found = rules.broken(made, tokens())
    assert found is not None
    assert found.where == "layer 1 (Dense)"
    assert re.search(said, str(found)), str(found)


def test_a_layer_that_sees_later_tokens_in_all_it_does_is_told() -> None:
    made = model()
    layer = made.feed_forwards()[0]
    changed(layer, "forward", lambda true, x, position_ids: true(x + 0.1 * x.roll(-1, 1), position_ids))
    found = rules.broken(made, tokens())
    assert found is not None
    assert (found.where, found.rule) == ("layer 0 (Dense)", "no token sees a later one")


def test_attention_that_sees_later_tokens_is_not_the_layers_fault() -> None:
    made = model()
    changed(made.blocks()[1], "forward", lambda true, x, *a, **k: true(x + 0.1 * x.roll(-1, 1), *a, **k))
    assert str(rules.broken(made, tokens())).startswith("what comes before layer 1: no token sees a later one")


def test_wrong_numbers_of_units_and_of_parameters_are_told() -> None:
    made = model()
    made.feed_forwards()[0].n_units = 7
    assert "codes are over the layer's n_units = 7; seen: n_units 128" in str(rules.broken(made, tokens()))
    made = model()
    changed(made, "active_parameters", lambda true: 10**9)
    assert "a token touches at most all" in str(rules.broken(made, tokens()))


def test_the_model_is_left_as_it_was() -> None:
    made = model("pools").train()
    made.blocks()[0].eval()  # as where somebody else's model, in eval mode, is wrapped
    before = {name: value.clone() for name, value in made.state_dict().items()}
    state = torch.random.get_rng_state()
    rules.broken(made, tokens())
    assert made.training
    assert not any(module.training for module in made.blocks()[0].modules())
    assert all(layer.tap is None for layer in made.feed_forwards())
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())
