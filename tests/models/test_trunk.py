"""What a new architecture may rely on, shown with one written here: neurons, beside them a map tied across layers."""

from typing import ClassVar

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

import models
from kernels.codes import Codes
from kernels.registry import Registry
from models import Tap, TrunkForCausalLM, registry
from models.config import TrunkConfig
from models.feed_forward import FixedWrites
from models.trunk import second_moment


class TiedConfig(TrunkConfig):
    model_type: ClassVar[str] = "tied-toy"
    width: int = 12


class Tied(FixedWrites):
    """relu neurons of its own; beside them a linear map tied across all layers, which no unit owns."""

    def __init__(self, config: TiedConfig, layer_index: int, shared: nn.Module | None) -> None:
        super().__init__(config, layer_index, shared)
        self.n_units = config.width
        self.w_in = nn.Linear(config.d_model, config.width, bias=False)
        self.w_out = nn.Linear(config.width, config.d_model, bias=False)

    @classmethod
    def build_shared(cls, config: TrunkConfig) -> nn.Module:
        return nn.Linear(config.d_model, config.d_model, bias=False)

    def fused(self, x):
        return self.w_out(self.w_in(x).relu()) + self.rest(x)

    def read(self, x, rows):
        return Codes.from_dense(self.w_in(x).relu(), rows)

    def write_vectors(self):
        return self.w_out.weight.T

    def rest(self, x):
        assert self.shared is not None
        return self.shared(x)

    def flops_per_token(self) -> int:
        return 2 * 2 * self.w_in.in_features * self.w_in.out_features + 2 * self.w_in.in_features**2


class TiedForCausalLM(TrunkForCausalLM):
    config_class = TiedConfig
    feed_forward_class = Tied


@pytest.fixture
def tied(monkeypatch) -> TiedForCausalLM:
    # Into a copy, so that the conformance tests and other files do not see the toy; Auto classes know no removal.
    monkeypatch.setattr(registry, "ARCHITECTURES", Registry("architecture", "models", "harness.systems"))
    if TiedConfig not in AutoModelForCausalLM._model_mapping:
        models.register("tied-toy", TiedForCausalLM)
    torch.manual_seed(0)
    return TiedForCausalLM(TiedConfig(d_model=16, n_heads=2, n_layers=3, vocab_size=32)).double().eval()


IDS = torch.arange(14).view(2, 7)


def test_what_layers_share_is_one_parameter_that_all_of_them_use(tied, tmp_path):
    names = [name for name, _ in tied.named_parameters() if "shared" in name]
    assert names == ["model.shared.weight"]
    assert tied.parameter_roles()["model.shared.weight"] == "matrix"
    tied(IDS, labels=IDS).loss.backward()
    assert all(layer.shared is tied.model.shared for layer in tied.feed_forwards())
    tied.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(loaded(IDS).logits, tied(IDS).logits)
        loaded.model.shared.weight.zero_()
        assert not torch.equal(loaded(IDS).logits, tied(IDS).logits)


@torch.no_grad()
def test_keep_rest_false_leaves_what_the_units_write(tied):
    layer = tied.feed_forwards()[0]
    x = torch.randn(2, 7, 16, dtype=torch.float64)
    positions = torch.arange(7)[None]
    whole = layer(x, positions)
    layer.tap = Tap(lambda codes, x: codes, keep_rest=False)
    torch.testing.assert_close(whole - layer(x, positions), tied.model.shared(x))
    layer.tap = Tap(lambda codes, x: codes.keep(torch.zeros_like(codes.units, dtype=torch.bool)))
    torch.testing.assert_close(layer(x, positions), tied.model.shared(x))


@torch.no_grad()
def test_a_shared_module_counts_once_in_the_active_parameters(tied):
    d, width, layers, vocab = 16, 12, 3, 32
    block = 4 * d * d + 2 * d + 2 * d * width
    assert tied.active_parameters() == vocab * d + d + layers * block + d * d


@torch.no_grad()
def test_hidden_states_are_what_blocks_pass_on(tied):
    seen = []
    for block in tied.model.layers:
        block.register_forward_hook(lambda module, args, out: seen.append(out))
    hidden = tied(IDS, output_hidden_states=True).hidden_states
    assert len(hidden) == 4
    assert torch.equal(hidden[1], seen[0])
    assert torch.equal(hidden[2], seen[1])


@torch.no_grad()
def test_eager_attention_gives_the_same_logits(tied):
    logits = tied(IDS).logits
    tied.set_attn_implementation("eager")
    # Hugging Face's eager attention takes its softmax in float32.
    torch.testing.assert_close(tied(IDS).logits, logits, rtol=1e-5, atol=1e-6)


def test_a_parameter_of_three_dimensions_must_name_its_role(tied):
    tied.feed_forwards()[1].cube = nn.Parameter(torch.zeros(2, 2, 2))
    with pytest.raises(ValueError, match=r"layers\.1\.feed_forward\.cube has 3 dimensions: name its role"):
        tied.parameter_roles()


def test_exactly_one_kind_of_input_is_wanted(tied):
    with pytest.raises(ValueError, match="either input_ids or inputs_embeds"):
        tied()


@torch.no_grad()
def test_what_writes_to_the_residual_stream_starts_smaller():
    torch.manual_seed(0)
    model = models.build("dense", d_model=64, n_layers=8)
    weights = dict(model.named_parameters())
    assert float(weights["model.layers.0.attention.o_proj.weight"].std()) == pytest.approx(0.02 / 4, rel=0.05)
    assert float(weights["model.layers.0.feed_forward.w_out.weight"].std()) == pytest.approx(0.02 / 4, rel=0.05)
    assert float(weights["model.layers.0.feed_forward.w_in.weight"].std()) == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize(
    ("activation", "moment"), [("relu", 0.5), ("relu2", 1.5), ("gelu", 0.42522), ("silu", 0.35578)]
)
def test_second_moments_of_activations(activation, moment):
    draws = torch.randn(400_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert second_moment(activation) == pytest.approx(moment, rel=1e-3)
    from models.trunk import ACTIVATIONS

    assert second_moment(activation, 0.3) == pytest.approx(
        float(ACTIVATIONS[activation](0.3 * draws).square().mean()), rel=0.02
    )


@pytest.mark.parametrize("tie", [True, False])
def test_a_dense_model_touches_all_it_has_but_the_other_rows_of_an_embedding_of_its_own(tie):
    model = models.build("dense", d_model=16, n_heads=2, n_layers=1, vocab_size=32, tie_word_embeddings=tie)
    idle = 0 if tie else 31 * 16
    assert model.active_parameters() == sum(p.numel() for p in model.parameters()) - idle
