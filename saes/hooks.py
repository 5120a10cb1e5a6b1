"""Where a published dictionary was trained, in the words of TransformerLens and SAELens, as a site of this harness."""

from __future__ import annotations

import re
from dataclasses import dataclass

_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")
# A block's module of Hugging Face: its output is the residual stream after it.
_HF_BLOCK = re.compile(r"(?:model\.layers|transformer\.h|gpt_neox\.layers)\.(\d+)(?:\.output)?")
# What comes out of the norm before the feed-forward layer, gain and all: what that layer reads.
_HF_INPUT = re.compile(
    r".*\.(\d+)\.(?:pre_feedforward_layernorm(?:\.output)?|post_attention_layernorm(?:\.output)?|ln_2(?:\.output)?"
    r"|mlp\.input)"
)
_READ_BY = "a dictionary can be at resid_post or mlp_out, a transcoder at mlp"


@dataclass(frozen=True)
class Place:
    """A site, by point and layer. before_gain: at mlp, that it reads what the norm gives before its gain and bias."""

    point: str
    layer: int
    before_gain: bool = False

    def __str__(self) -> str:
        return f"{self.point} of layer {self.layer}"


def place_of_autoencoder(hook: str) -> Place:
    """Raises ValueError where nothing here reads what the hook gives."""
    if found := _HF_BLOCK.fullmatch(hook):
        return Place("resid_post", int(found[1]))
    layer, inside = _split(hook)
    if inside == "hook_resid_post":
        return Place("resid_post", layer)
    if inside == "hook_mlp_out":
        return Place("mlp_out", layer)
    if inside == "hook_resid_pre":
        if layer == 0:
            raise ValueError(f"it was trained at {hook}, the stream before the first layer, and {_READ_BY}")
        return Place("resid_post", layer - 1)  # the same tensor
    raise ValueError(f"it was trained at {hook}, and {_READ_BY}")


def place_of_transcoder(hook: str, hook_out: str | None, hf_hook: str | None, folded: bool) -> Place:
    """hf_hook: the same place in Hugging Face's words, which count where they are there. folded: whether the norm's
    gain had been moved into the layer that follows (`fold_ln`).

    Raises ValueError where nothing here reads that, or where it writes anywhere but to its own layer's output.
    """
    layer, inside = _split(hook)
    if hook_out not in (None, f"blocks.{layer}.hook_mlp_out"):
        raise ValueError(f"it writes to {hook_out} what it reads at {hook}, and a transcoder here stays in its layer")
    if hf_hook and (found := _HF_INPUT.fullmatch(hf_hook)) and int(found[1]) == layer:
        return Place("mlp", layer)
    if inside == "mlp.hook_in":
        return Place("mlp", layer, before_gain=folded)
    if inside == "ln2.hook_normalized":
        return Place("mlp", layer, before_gain=True)
    before = " (the stream before the norm)" if inside in ("hook_mlp_in", "hook_resid_mid") else ""
    raise ValueError(f"it reads {hook}{before}, and {_READ_BY}, which is behind the norm")


def _split(hook: str) -> tuple[int, str]:
    found = _BLOCK.fullmatch(hook)
    if found is None:
        raise ValueError(f"it was trained at {hook}, and {_READ_BY}")
    return int(found[1]), found[2]
