"""Mixtures of experts that others trained: their units are the neurons inside the experts that a token visits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from models import pretrained
from models.feed_forward import Tap
from models.pretrained import FAMILIES, PretrainedLayer, PretrainedSubject
from models.pretrained_experts import ExpertsLayer

from .test_pretrained import LAYERS, VOCAB, WIDTH, tiny, tokens

MIXTURES = [name for name, names in FAMILIES.items() if names.mixture is not None]
EXPERTS, VISITED, NEURONS = 6, 2, {"olmoe": 48, "mixtral": 48, "qwen2_moe": 24, "qwen3_moe": 24}
every_mixture = pytest.mark.parametrize("family", MIXTURES)


def layer_of(family: str) -> ExpertsLayer:
    layer = PretrainedSubject(tiny(family)).feed_forwards()[1]
    assert isinstance(layer, ExpertsLayer)
    return layer


def inputs(n: int = 5) -> tuple[Tensor, Tensor]:
    return torch.randn(n, WIDTH, generator=torch.Generator().manual_seed(3)), torch.zeros(n, 2, dtype=torch.long)


@every_mixture
def test_the_neurons_of_the_visited_experts_are_in_the_codes_and_no_others(family: str) -> None:
    layer, (x, rows), width = layer_of(family), inputs(), NEURONS[family]
    codes = layer.read(x, rows)
    assert (layer.n_units, layer.group_width) == (EXPERTS * width, width)
    assert codes.row_lengths().tolist() == [VISITED * width] * len(x)  # a silu is never silent
    logits = layer.mlp.get_submodule("gate")(x)[0]
    for token in range(len(x)):
        visited = (codes.units[codes.token_of_entry() == token] // width).unique()
        assert set(visited.tolist()) == set(logits[token].topk(VISITED).indices.tolist())


@every_mixture
def test_a_coefficient_is_the_gate_times_the_neurons_activation(family: str) -> None:
    layer, (x, rows), width = layer_of(family), inputs(), NEURONS[family]
    experts: Any = layer.mlp.get_submodule("experts")
    shares = layer.mlp.get_submodule("gate")(x)[0].softmax(-1)
    codes = layer.read(x, rows)
    for entry in (0, 11, codes.nnz - 1):
        token, unit = int(codes.token_of_entry()[entry]), int(codes.units[entry])
        expert, neuron = unit // width, unit % width
        gate = shares[token, expert]
        if family in ("mixtral", "qwen3_moe"):  # these two share 1 among the visited
            gate = gate / shares[token].topk(VISITED).values.sum()
        inward = experts.gate_up_proj[expert]
        activation = nn.functional.silu(inward[neuron] @ x[token]) * (inward[width + neuron] @ x[token])
        torch.testing.assert_close(codes.values[entry], gate * activation, atol=1e-6, rtol=1e-4)
        column = layer.writes(codes, x, torch.tensor([entry]))[0]
        assert torch.equal(column, experts.down_proj[expert, :, neuron])


@every_mixture
def test_with_every_unit_off_what_is_left_is_the_shared_expert(family: str) -> None:
    layer, (x, rows) = layer_of(family), inputs()
    codes = layer.read(x, rows)
    nothing = codes.keep(torch.zeros(codes.nnz, dtype=torch.bool))
    assert torch.equal(layer.write(nothing, x), torch.zeros_like(x))
    layer.tap = Tap(lambda codes, _x: codes.keep(torch.zeros(codes.nnz, dtype=torch.bool)))
    left = layer(x[None])[0]
    if family == "qwen2_moe":
        mlp: Any = layer.mlp
        torch.testing.assert_close(left, mlp.shared_expert_gate(x).sigmoid() * mlp.shared_expert(x))
        assert layer.rest_neurons == 40
    else:
        assert torch.equal(left, torch.zeros_like(x))
        assert layer.rest_neurons == 0


@every_mixture
def test_gradients_reach_the_coefficients(family: str) -> None:
    layer, (x, rows) = layer_of(family), inputs(2)
    codes = layer.read(x, rows)
    values = codes.values.clone().requires_grad_()
    toward = torch.linspace(-1, 1, WIDTH)
    found = torch.autograd.grad((layer.write(codes.with_values(values), x) @ toward).sum(), values)[0]
    each = layer.writes(codes, x, torch.arange(codes.nnz)) @ toward
    torch.testing.assert_close(found, each, atol=1e-6, rtol=1e-4)


@every_mixture
def test_a_token_uses_the_experts_that_it_visits(family: str) -> None:
    subject = PretrainedSubject(tiny(family))
    layers = [layer for layer in subject.feed_forwards() if isinstance(layer, ExpertsLayer)]
    idle = len(layers) * (EXPERTS - VISITED) * 3 * NEURONS[family] * WIDTH + (VOCAB - 1) * WIDTH
    assert subject.active_parameters() == sum(p.numel() for p in subject.parameters()) - idle


def test_a_dense_layer_among_experts_is_a_dense_layer() -> None:
    layers = PretrainedSubject(tiny("qwen3_moe")).feed_forwards()
    assert [type(layer) for layer in layers] == [PretrainedLayer, *[ExpertsLayer] * (LAYERS - 1)]
    assert [layer.group_width for layer in layers] == [None, 24, 24]


@every_mixture
def test_what_is_saved_lies_in_the_published_layout_and_computes_the_same(family: str, tmp_path: Path) -> None:
    subject = PretrainedSubject(tiny(family))
    native = subject(tokens()).logits
    pretrained.save(subject, tmp_path)
    assert any(".experts.3." in name for name in load_file(tmp_path / "model.safetensors"))  # one by one, as published
    torch.testing.assert_close(pretrained.load(tmp_path, "float32")(tokens()).logits, native)


@pytest.mark.parametrize("lost", ["mlp.gate.weight", "mlp.experts.3.up_proj.weight", "mlp.experts.3."])
def test_a_checkpoint_without_some_of_its_tensors_is_refused(lost: str, tmp_path: Path) -> None:
    tiny("olmoe").save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    whole = load_file(file)
    left = {name: tensor for name, tensor in whole.items() if not name.startswith(f"model.layers.1.{lost}")}
    assert len(left) < len(whole)
    save_file(left, file, {"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks|cannot be read") as raised:
        pretrained.load(tmp_path, "float32")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("names", [None, {"mlp": "block_sparse_moe"}])
def test_a_mixture_that_is_not_known_is_refused_whatever_names_are_given(names: dict[str, str] | None) -> None:
    config = AutoConfig.for_model("granitemoe", vocab_size=VOCAB, hidden_size=WIDTH, num_hidden_layers=1,
                                  num_attention_heads=4, num_key_value_heads=2, intermediate_size=8,
                                  num_local_experts=4, num_experts_per_tok=2)  # fmt: skip
    model = AutoModelForCausalLM.from_config(config)
    with pytest.raises(
        ValueError, match=r"'granitemoe' has experts, and is none of .*: olmoe, mixtral, qwen3_moe, qwen2"
    ):
        pretrained._given(model, names)
