"""What a layer need not say: its model class, its fast way, what a token costs, how it starts."""

import copy
import math
import pickle

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

import models
from kernels.registry import Registry
from models import Codes, FeedForward, FixedWrites, TrunkConfig, registry
from models.counted import counted_active, counted_flops

D = 16


def layer(name: str, **settings) -> FeedForward:
    torch.manual_seed(0)
    return models.build(name, d_model=D, n_heads=2, n_layers=2, vocab_size=8, **settings).feed_forwards()[0]


@pytest.mark.parametrize("name", [name for name in models.ARCHITECTURES if name not in ("moex", "pools")])
def test_what_is_counted_is_what_closed_forms_say(name: str) -> None:
    """Not of the sparsity router, whose scores come from all experts' matrices, nor of pools, where a token takes fewer
    experts than it may; their forms are conventions."""
    made = layer(name)
    assert counted_flops(made) == made.flops_per_token()
    assert counted_active(made) == made.active_parameters()


@pytest.mark.parametrize("implementation", ["reference", "cpu"])
def test_a_count_does_not_depend_on_which_kernels_run(implementation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_KERNELS", implementation)
    made = layer("mxd", n_experts=100, k=3, d_ff=24)
    # Gate, encoder, decoder, and k rows of C.
    assert made.flops_per_token() == 2 * (100 * D + 2 * 24 * D + 3 * D)
    assert made.active_parameters() == 100 * D + 100 + 2 * 24 * D + 3 * D


def test_a_model_without_memory_costs_the_same() -> None:
    with torch.device("meta"):
        made = layer("mxd")
        assert (made.flops_per_token(), made.active_parameters()) == (
            layer("mxd").flops_per_token(),
            layer("mxd").active_parameters(),
        )


def test_counting_draws_nothing_from_the_generator_of_who_asks() -> None:
    made = layer("mxd")
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    made.flops_per_token()
    made.active_parameters()
    assert torch.equal(torch.rand(4), expected)


class BagConfig(TrunkConfig):
    width: int = 12


class Bag(FixedWrites):
    """Reads by single vectors and a bag: what torch's own counter misses."""

    n_units = 12

    def __init__(self, config: BagConfig, layer_index: int, shared: nn.Module | None) -> None:
        super().__init__(config, layer_index, shared)
        self.rows = nn.Parameter(torch.zeros(config.width, config.d_model))
        self.lift = nn.Linear(config.width, config.d_model, bias=False)
        self.bias = nn.Parameter(torch.full((config.d_model,), 0.25))

    def read(self, x: Tensor, rows: Tensor) -> Codes:
        return Codes.from_dense(torch.stack([self.rows.mv(token) for token in x]), rows)

    def write_vectors(self) -> Tensor:
        return self.lift.weight.T

    def rest(self, x: Tensor) -> Tensor:
        first = torch.zeros(len(x), 2, dtype=torch.long)
        weights = torch.ones_like(first, dtype=x.dtype)
        return self.bias + nn.functional.embedding_bag(first, self.rows, per_sample_weights=weights, mode="sum")


@pytest.fixture
def bag(monkeypatch: pytest.MonkeyPatch) -> models.TrunkForCausalLM:
    # Into a copy, so that no other test sees the toy.
    monkeypatch.setattr(registry, "ARCHITECTURES", Registry("architecture", "models", "harness.systems"))
    models.register("bag-toy", BagConfig, Bag)
    torch.manual_seed(0)
    return registry.ARCHITECTURES["bag-toy"].model_class(BagConfig(d_model=D, n_heads=2, n_layers=3, vocab_size=8))


def test_a_layer_and_its_configuration_make_a_model(bag: models.TrunkForCausalLM, tmp_path) -> None:
    assert type(bag).__name__ == "BagForCausalLM"
    assert type(bag).__module__ == Bag.__module__
    assert bag.config.model_type == "bag-toy"
    ids = torch.arange(6)[None]
    bag.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    for same in (loaded, copy.deepcopy(bag), pickle.loads(pickle.dumps(bag))):
        assert type(same) is type(bag)
        torch.testing.assert_close(same(ids).logits, bag(ids).logits)


def test_single_vectors_and_bags_are_counted(bag: models.TrunkForCausalLM) -> None:
    made = bag.feed_forwards()[0]
    assert made.flops_per_token() == 2 * 12 * D + 2 * 12 * D + 2 * 2 * D
    assert made.active_parameters() == 12 * D + 12 * D + D


def test_shapes_say_how_a_layer_starts(bag: models.TrunkForCausalLM) -> None:
    made = bag.feed_forwards()[0]
    assert isinstance(made, Bag)
    std = bag.config.initializer_range
    assert made.rows.std().item() == pytest.approx(std, rel=0.2)
    assert made.lift.weight.std().item() == pytest.approx(std / math.sqrt(2 * 3), rel=0.2)
    assert made.bias.unique().tolist() == [0.25]
    roles = bag.parameter_roles()
    assert {roles[f"model.layers.0.feed_forward.{name}"] for name in ("rows", "lift.weight")} == {"matrix"}
    assert roles["model.layers.0.feed_forward.bias"] == "norm"


def test_mxd_starts_as_large_as_a_dense_layer() -> None:
    x = torch.randn(500, 64, generator=torch.Generator().manual_seed(0))
    sizes = {}
    for name in ("dense", "mxd"):
        torch.manual_seed(0)
        made = models.build(name, d_model=64, n_heads=2, n_layers=2, vocab_size=8).feed_forwards()[0]
        sizes[name] = float(made.fused(x).std())
    assert 0.5 < sizes["mxd"] / sizes["dense"] < 2


def test_a_decoder_of_mxd_is_the_full_matrix_scaled_row_by_row() -> None:
    made = layer("mxd", n_experts=10, k=2, d_ff=24)
    x = torch.randn(3, D, generator=torch.Generator().manual_seed(0))
    codes = made.read(x, torch.zeros(3, 2, dtype=torch.long))
    z = nn.functional.gelu(x @ made.encoder.weight.T)  # pyright: ignore
    expected = torch.zeros(3, D)
    for token, unit, gate in zip(codes.token_of_entry(), codes.units, codes.values, strict=True):
        decoder = torch.diag(made.scales[unit]) @ made.decoder.weight  # pyright: ignore
        expected[token] += gate * decoder @ z[token]
    torch.testing.assert_close(made.fused(x), expected)
