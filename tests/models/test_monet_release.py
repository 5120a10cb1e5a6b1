"""MonetLLM's layout read into our own `monet`: the same logits as the published equations, or a refusal."""

from __future__ import annotations

import json
import math
from pathlib import Path
from statistics import NormalDist
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from models import monet_release, pretrained

VOCAB, D, LAYERS, ATTENTION, N, M, HEADS, K, GROUP, EPS = 23, 16, 4, 2, 5, 4, 3, 2, 2, 1e-6
both = pytest.mark.parametrize("decomposition", ["horizontal", "vertical"])


def release(
    folder: Path, decomposition: str, *, tied: bool = False, vocabulary: int = VOCAB, **other: Any
) -> dict[str, Tensor]:
    """A random one, in the published layout; returns its weights."""
    config = {
        "model_type": "monet", "architectures": ["MonetForCausalLM"], "vocab_size": vocabulary, "hidden_size": D,
        "num_hidden_layers": LAYERS, "num_attention_heads": ATTENTION, "num_key_value_heads": ATTENTION,
        "intermediate_size": None, "hidden_act": "relu2", "max_position_embeddings": 32, "rms_norm_eps": EPS,
        "rope_theta": 500.0, "rope_scaling": None, "attention_bias": False, "tie_word_embeddings": tied,
        "moe_dim": M, "moe_heads": HEADS, "moe_experts": N, "moe_topk": K, "moe_groups": GROUP,
        "moe_decompose": decomposition, "bos_token_id": 1, "eos_token_id": 2,
        "auto_map": {"AutoModelForCausalLM": "modeling_monet.MonetForCausalLM"},
    }  # fmt: skip
    half = N * M // 2
    layer: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (D,), "post_attention_layernorm.weight": (D,),
        **{f"self_attn.{each}_proj.weight": (D, D) for each in "qkvo"},
    }  # fmt: skip
    if decomposition == "horizontal":
        layer |= {"moe.u.weight": (N * M, D), "moe.u.bias": (N * M,), "moe.v.weight": (D, N * M), "moe.b": (N, D)}
    else:
        for i in (1, 2):
            layer |= {f"moe.u{i}.weight": (half, D), f"moe.u{i}.bias": (half,), f"moe.b{i}": (N, D // 2)}
            layer |= {f"moe.v{i}{j}.weight": (D // 2, half) for j in (1, 2)}
    router = {f"router.w{i}.weight": (HEADS * N, D) for i in (1, 2)}
    router |= {f"router.norm{i}.running_{of}": (HEADS,) for i in (1, 2) for of in ("mean", "var")}
    shapes = {"model.embed_tokens.weight": (vocabulary, D), "model.norm.weight": (D,)}
    shapes |= {} if tied else {"lm_head.weight": (vocabulary, D)}
    for index in range(LAYERS):
        named = layer | (router if index % GROUP == 0 else {})
        shapes |= {f"model.layers.{index}.{name}": shape for name, shape in named.items()}
    generator = torch.Generator().manual_seed(7)
    weights = {name: 0.5 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    for name, tensor in weights.items():
        if name.endswith("running_var"):
            tensor.abs_().add_(0.5)
    counters = {f"model.layers.{index}.router.norm{i}.num_batches_tracked": torch.tensor(9)
                for index in range(0, LAYERS, GROUP) for i in (1, 2)}  # fmt: skip
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config | other))
    save_file(weights | counters, folder / "model.safetensors", {"format": "pt"})
    return weights


class Reference:
    """The paper's equations, expert by expert, in float64; one sequence."""

    def __init__(self, weights: dict[str, Tensor], decomposition: str, tied: bool) -> None:
        self.weights = {name: tensor.double() for name, tensor in weights.items()}
        self.vertical = decomposition == "vertical"
        self.head = self.weights["model.embed_tokens.weight" if tied else "lm_head.weight"]

    def logits(self, ids: list[int]) -> Tensor:
        x = self.weights["model.embed_tokens.weight"][ids]  # [T, D]
        gates: list[tuple[Tensor, Tensor]] = []
        for index in range(LAYERS):
            self.at = f"model.layers.{index}."
            x = x + self.attention(self.rms(x, self.at + "input_layernorm.weight"))
            h = self.rms(x, self.at + "post_attention_layernorm.weight")
            if index % GROUP == 0:
                gates = [(self.gates(token, 1), self.gates(token, 2)) for token in h]
            x = x + torch.stack([self.experts(token, *of) for token, of in zip(h, gates, strict=True)])
        return self.rms(x, "model.norm.weight") @ self.head.T

    def rms(self, x: Tensor, name: str) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + EPS).sqrt() * self.weights[name]

    def attention(self, x: Tensor) -> Tensor:
        width, length = D // ATTENTION, len(x)
        q, k, v = (
            (x @ self.weights[f"{self.at}self_attn.{each}_proj.weight"].T).view(length, ATTENTION, width)
            for each in "qkv"
        )
        frequency = 500.0 ** (-torch.arange(0, width, 2).double() / width)
        turn = torch.polar(torch.ones(1).double(), torch.arange(length).double()[:, None] * frequency)[:, None]

        def turned(y: Tensor) -> Tensor:
            z = torch.complex(y[..., : width // 2], y[..., width // 2 :]) * turn
            return torch.cat([z.real, z.imag], dim=-1)

        scores = torch.einsum("ahd,bhd->hab", turned(q), turned(k)) / math.sqrt(width)
        scores = scores.masked_fill(torch.ones(length, length).triu(1).bool(), -torch.inf)
        mixed = torch.einsum("hab,bhd->ahd", scores.softmax(-1), v).flatten(1)
        return mixed @ self.weights[f"{self.at}self_attn.o_proj.weight"].T

    def gates(self, x: Tensor, of: int) -> Tensor:
        """`[HEADS, N]`"""
        router = f"{self.at}router."
        logits = (self.weights[f"{router}w{of}.weight"] @ x).view(HEADS, N)
        mean, var = (self.weights[f"{router}norm{of}.running_{what}"][:, None] for what in ("mean", "var"))
        z = (logits - mean) / (var + 1e-5).sqrt()
        found = torch.zeros(HEADS, N).double()
        for head in range(HEADS):
            kept = z[head] >= min(float(z[head].max()), NormalDist().inv_cdf(1 - K / N))
            found[head, kept] = logits[head, kept].softmax(0)
        return found

    def experts(self, x: Tensor, g1: Tensor, g2: Tensor) -> Tensor:
        """Σ_ij Σ_h g1_hi g2_hj E_ij(x), one expert after the other."""
        out = torch.zeros(D).double()
        for i in range(N):
            for j in range(N):
                out = out + (g1[:, i] * g2[:, j]).sum() * self.expert(x, i, j)
        return out

    def expert(self, x: Tensor, i: int, j: int) -> Tensor:
        w, moe = self.weights, f"{self.at}moe."

        def hidden(name: str, part: int, width: int) -> Tensor:
            rows = slice(part * width, (part + 1) * width)
            return (w[f"{moe}{name}.weight"][rows] @ x + w[f"{moe}{name}.bias"][rows]).relu().square()

        def columns(name: str, part: int, width: int) -> Tensor:
            return w[f"{moe}{name}.weight"][:, part * width : (part + 1) * width]

        if not self.vertical:
            return columns("v", j, M) @ hidden("u", i, M) + w[f"{moe}b"][j]
        h1, h2 = hidden("u1", i, M // 2), hidden("u2", j, M // 2)
        left = columns("v11", i, M // 2) @ h1 + columns("v12", i, M // 2) @ h2 + w[f"{moe}b1"][i]
        right = columns("v21", j, M // 2) @ h1 + columns("v22", j, M // 2) @ h2 + w[f"{moe}b2"][j]
        return torch.cat([left, right])


@both
@pytest.mark.parametrize("tied", [False, True])
def test_a_release_computes_what_the_paper_says(decomposition: str, tied: bool, tmp_path: Path) -> None:
    weights = release(tmp_path, decomposition, tied=tied)
    ids = [3, 1, 4, 1, 5, 9, 2, 6]
    found = pretrained.load(tmp_path, "float64")(torch.tensor([ids])).logits[0]
    wanted = Reference(weights, decomposition, tied).logits(ids)
    # float32: rotary positions, in transformers whatever the dtype
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


@both
def test_gates_choose_among_parts_so_that_the_comparison_can_fail(decomposition: str, tmp_path: Path) -> None:
    release(tmp_path, decomposition)
    model = monet_release.load(tmp_path, "float32")
    layer: Any = model.feed_forwards()[0]
    kept = (layer.router(torch.randn(40, D, generator=torch.Generator().manual_seed(2)))[0] > 0).sum(-1)
    assert 1 <= int(kept.min()) < int(kept.max()) <= N


@both
def test_an_untrained_control_has_its_shape_and_is_kept_in_our_layout(decomposition: str, tmp_path: Path) -> None:
    release(tmp_path / "theirs", decomposition)
    torch.manual_seed(0)
    control, trained = pretrained.initial(tmp_path / "theirs"), pretrained.load(tmp_path / "theirs", "float32")
    assert control.active_parameters() == trained.active_parameters()
    pretrained.save(control, tmp_path / "ours")
    ids = torch.tensor([[3, 1, 4]])
    again = pretrained.load(tmp_path / "ours", "float32")
    torch.testing.assert_close(again(ids).logits, control(ids).logits)
    assert not torch.allclose(control(ids).logits, trained(ids).logits)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"num_key_value_heads": 1}, "keys of their own.* num_key_value_heads=1"),
        ({"attention_bias": True}, "no bias.* attention_bias=True"),
        ({"head_dim": 4}, "2 heads of 8.* head_dim=4"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "plain rotary positions.* rope_scaling="),
        ({"hidden_act": "gelu_new"}, "activation='gelu_new' is not known"),
        ({"moe_groups": 3}, "routing_group=3 does not divide n_layers=4"),
        ({"moe_topk": 5}, "keeps all of the n=5 parts"),
        ({"moe_decompose": "diagonal"}, "'diagonal' is none of horizontal, vertical"),
        ({"moe_dim": 6}, r"layers.0.feed_forward.u has shape \(20, 16\), and its config.json says \(30, 16\)"),
    ],
)
def test_what_our_monet_cannot_be_is_refused(other: dict[str, Any], said: str, tmp_path: Path) -> None:
    release(tmp_path, "vertical", **other)
    with pytest.raises(ValueError, match=said) as raised:
        pretrained.load(tmp_path, "float32")
    assert "\n" not in str(raised.value)


def test_a_configuration_that_lacks_a_size_is_refused(tmp_path: Path) -> None:
    release(tmp_path, "vertical")
    said = json.loads((tmp_path / "config.json").read_text())
    del said["moe_topk"]
    (tmp_path / "config.json").write_text(json.dumps(said))
    with pytest.raises(ValueError, match=r"config\.json of a monet release lacks moe_topk"):
        pretrained.load(tmp_path, "float32")


@pytest.mark.parametrize("lost", ["model.layers.2.router.w1.weight", "model.layers.1.moe.v21.weight", "lm_head.weight"])
def test_a_release_without_one_of_its_tensors_is_refused(lost: str, tmp_path: Path) -> None:
    release(tmp_path, "vertical")
    file = tmp_path / "model.safetensors"
    save_file({name: tensor for name, tensor in load_file(file).items() if name != lost}, file, {"format": "pt"})
    with pytest.raises(ValueError, match=f"lacks {lost} of a monet release"):
        pretrained.load(tmp_path, "float32")


def test_a_tensor_that_has_no_place_is_refused(tmp_path: Path) -> None:
    weights = release(tmp_path, "vertical")
    save_file({**weights, "model.layers.1.router.w1.weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"no place for: model.layers.1.router.w1.weight"):
        pretrained.load(tmp_path, "float32")


def test_names_of_modules_are_refused(tmp_path: Path) -> None:
    release(tmp_path, "vertical")
    with pytest.raises(ValueError, match="a monet has none"):
        pretrained.load(tmp_path, "float32", names={"mlp": "moe"})
