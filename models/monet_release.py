"""MonetLLM's releases (arXiv 2412.04139; on the Hub: MonetLLM/monet-vd-*, monet-hd-*) read into our own `monet`.

Theirs is a Llama trunk with the paper's layer: RMSNorm, rotary attention, no bias, untied head. Ours is the same
function: gates by BatchNorm's running statistics, threshold and softmax of raw logits; one routing for `moe_groups`
layers; biases on hidden vectors and outputs. So weights move by name alone, but for two layouts: vertically they keep
halves apart (u1, u2; v11, v12 for the left half of the output, v21, v22 for the right), which ours has side by side in
every part.

What our trunk cannot be (keys shared by heads, biases in attention, other rotary scalings, heads of another width) is
refused. Sizes that the paper states add up to the released parameter counts without any of these: 24 layers of width
2048, 16 heads of attention, 8 of routing, 2 · 512 parts of width 16 and an untied head of 32,000 make 1.465B. Their
config.json files we could not read. Their code takes softmax and norm of the router in float32 whatever the dtype, ours
in the model's: in bfloat16 the two round differently.

A folder of our own `monet`, as `save_pretrained` writes it, is read as well: what is made from a release, the untrained
control, lies in that layout.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from models.config import TrunkConfig
from models.registry import ARCHITECTURES, Architecture
from models.trunk import TrunkForCausalLM

MODEL_TYPE = "monet"  # theirs and ours
NAMES = {"horizontal": "monet-hd", "vertical": "monet-vd"}
_SETTINGS = {  # ours: theirs
    "vocab_size": "vocab_size",
    "d_model": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "max_position_embeddings": "max_position_embeddings",
    "norm_eps": "rms_norm_eps",
    "activation": "hidden_act",
    "heads": "moe_heads",
    "k": "moe_topk",
    "d_expert": "moe_dim",
    "routing_group": "moe_groups",
}
_SPECIAL = ("pad_token_id", "bos_token_id", "eos_token_id")
_OUTSIDE = {"model.embed_tokens.weight": "model.embed_tokens.weight", "model.norm.weight": "model.norm.weight"}
_IN_BLOCK = {  # ours: theirs
    "attention_norm.weight": "input_layernorm.weight",
    "feed_forward_norm.weight": "post_attention_layernorm.weight",
    **{f"attention.{each}_proj.weight": f"self_attn.{each}_proj.weight" for each in "qkvo"},
}
_ROUTER = ("w1.weight", "w2.weight", *(f"norm{i}.running_{of}" for i in (1, 2) for of in ("mean", "var")))
_IDLE = ("num_batches_tracked", "rotary_emb.inv_freq")  # counted or made anew, never read


def reads(folder: Path) -> bool:
    """Whether it is a monet that lies in the folder, theirs or ours."""
    return _said(folder).get("model_type") == MODEL_TYPE


def architecture(folder: Path) -> str:
    """Its name in our registry. Raises ValueError."""
    said = _said(folder)
    decomposition = said.get("moe_decompose", said.get("decomposition"))
    if decomposition not in NAMES:
        raise ValueError(f"{folder}: moe_decompose={decomposition!r} is none of {', '.join(NAMES)}")
    return NAMES[decomposition]


def config_of(folder: Path) -> TrunkConfig:
    """Raises ValueError, one line, where the release is no model that ours can be."""
    said, known = _said(folder), _architecture(folder)
    if "moe_decompose" not in said:
        return known.config_class.from_pretrained(folder)
    if lacking := [name for name in (*_SETTINGS.values(), "moe_experts") if name not in said]:
        raise ValueError(f"{folder}: config.json of a monet release lacks {', '.join(lacking)}")
    _check_trunk(folder, said)
    settings: dict[str, Any] = {ours: said[theirs] for ours, theirs in _SETTINGS.items()}
    settings |= {"n_experts": said["moe_experts"] ** 2, "router_norm": "batch"}
    settings |= {name: said.get(name) for name in _SPECIAL}
    base = (said.get("rope_parameters") or said).get("rope_theta", 10_000.0)
    try:
        return known.config_class(
            **settings,
            **known.fixed,
            tie_word_embeddings=bool(said.get("tie_word_embeddings", False)),
            rope_parameters={"rope_type": "default", "rope_theta": float(base)},
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"{folder}: no monet of ours has its configuration ({error})") from error


def load(folder: Path, dtype: str) -> TrunkForCausalLM:
    """In evaluation mode, without gradients. Raises ValueError, one line."""
    config, known = config_of(folder), _architecture(folder)
    if "moe_decompose" not in _said(folder):
        model = known.model_class.from_pretrained(folder, dtype=getattr(torch, dtype))
        return model.eval().requires_grad_(False)
    model = known.model_class(config)
    with ExitStack() as stack:
        theirs = _Tensors(folder, stack)
        ours = dict(_translated(theirs, config))
        if extra := theirs.left():
            raise ValueError(f"{folder} holds tensors that a monet has no place for: {', '.join(extra[:3])}")
    own = model.state_dict()
    for name, tensor in ours.items():
        if own[name].shape != tensor.shape:
            raise ValueError(
                f"{folder}: {name} has shape {tuple(tensor.shape)}, and its config.json says {tuple(own[name].shape)}"
            )
    model.load_state_dict(ours, strict=False)  # all but counters, by `_translated`
    nn.Module.to(model, getattr(torch, dtype))
    return model.eval().requires_grad_(False)


def initial(folder: Path) -> TrunkForCausalLM:
    """Of the same shape, initialised as our own are."""
    config = config_of(folder)
    return _architecture(folder).model_class(config).eval().requires_grad_(False)


class _Tensors:
    """The tensors of a folder by name, read when asked for; which of them nobody asked for."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self._file: dict[str, Any] = {}
        for path in sorted(folder.glob("*.safetensors")):
            try:
                file = stack.enter_context(safe_open(path, framework="pt"))
            except (OSError, SafetensorError) as error:
                raise ValueError(f"{path} cannot be read ({error})") from error
            self._file |= dict.fromkeys(file.keys(), file)
        self._left = {name for name in self._file if not name.endswith(_IDLE)}

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._file:
            raise ValueError(f"{self.folder} lacks {name} of a monet release")
        self._left.discard(name)
        return self._file[name].get_tensor(name)

    def left(self) -> list[str]:
        return sorted(self._left)


def _translated(theirs: _Tensors, config: Any) -> Iterator[tuple[str, Tensor]]:
    for ours, name in _OUTSIDE.items():
        yield ours, theirs[name]
    yield "lm_head.weight", theirs["model.embed_tokens.weight" if config.tie_word_embeddings else "lm_head.weight"]
    for layer in range(config.n_layers):
        block = f"model.layers.{layer}."
        for ours, name in _IN_BLOCK.items():
            yield block + ours, theirs[block + name]
        if layer % config.routing_group == 0:
            for name in _ROUTER:
                yield f"{block}feed_forward.router.{name}", theirs[f"{block}router.{name}"]
        parts = _vertical if config.decomposition == "vertical" else _horizontal
        for ours, tensor in parts(theirs, f"{block}moe.", config.n_parts):
            yield f"{block}feed_forward.{ours}", tensor


def _horizontal(theirs: _Tensors, moe: str, _n: int) -> Iterator[tuple[str, Tensor]]:
    for ours, name in {"u": "u.weight", "b": "u.bias", "v1": "v.weight", "c1": "b"}.items():
        yield ours, theirs[moe + name]


def _vertical(theirs: _Tensors, moe: str, n: int) -> Iterator[tuple[str, Tensor]]:
    for ours, of in {"u": "weight", "b": "bias"}.items():
        yield ours, torch.cat([theirs[f"{moe}u{half}.{of}"] for half in (1, 2)])
    for side in (1, 2):
        # Each `[d/2, n · m/2]`: of a part's m columns the first half reads i's hidden vector, the second j's.
        halves = [theirs[f"{moe}v{side}{half}.weight"].unflatten(1, (n, -1)) for half in (1, 2)]
        yield f"v{side}", torch.cat(halves, dim=2).flatten(1)
        yield f"c{side}", theirs[f"{moe}b{side}"]


def _check_trunk(folder: Path, said: dict[str, Any]) -> None:
    heads, width = said["num_attention_heads"], said["hidden_size"]
    rope = said.get("rope_parameters") or {}
    differs = {
        "num_key_value_heads": said.get("num_key_value_heads") not in (None, heads),
        "head_dim": said.get("head_dim") not in (None, width // heads),
        "attention_bias": bool(said.get("attention_bias")),
        "rope_scaling": said.get("rope_scaling") is not None,
        "rope_parameters": rope.get("rope_type", "default") != "default",
    }
    if found := [f"{name}={said[name]}" for name, other in differs.items() if other]:
        raise ValueError(
            f"{folder}: our trunk has {heads} heads of {width // heads} with keys of their own, no bias and plain "
            f"rotary positions; the release has {', '.join(found)}"
        )


def _architecture(folder: Path) -> Architecture:
    return ARCHITECTURES.named(architecture(folder))


def _said(folder: Path) -> dict[str, Any]:
    try:
        said = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return {}  # told where a model of any kind is read
    return said if isinstance(said, dict) else {}
