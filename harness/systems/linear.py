"""A subject on one prompt as a linear map from what is written to what is read, everything between held still.

Attention patterns and the scales of norms are those of the prompt, feed-forward layers pass nothing on: what the token
embeddings, units, and what no unit explains write to the residual stream then adds up in every later input. Gradients
through this model are the direct effects of one write on one reading (the local replacement model of attribution
graphs, as in Ameisen et al., "Circuit tracing", 2025; a dictionary on a layer's output reads through the layer, whose
own bend is taken at the prompt).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

from harness.systems.system import Site, System
from kernels.codes import Codes, token_rows
from models.norms import Norm, norm_of
from models.subject import Subject

_ATTENTION = "frozen_pattern"


@dataclass(frozen=True)
class Linear:
    """One prompt of T tokens. tokens `[T]`.

    written: by place, what is added to the residual stream, leaves of the graph `[T, d_model]`: the embeddings under
    None, a site's output under the site. codes: of every site, whose values hang in the graph; read: what its units
    read `[T, d_model]`. logits `[T, vocabulary]`.
    """

    tokens: Tensor
    written: dict[Site | None, Tensor]
    codes: dict[Site, Codes]
    read: dict[Site, Tensor]
    logits: Tensor


def linear(system: System, tokens: Tensor) -> Linear:
    """The graph of `tokens` `[T]`."""
    written: dict[Site | None, Tensor] = {}
    codes: dict[Site, Codes] = {}
    read: dict[Site, Tensor] = {}
    positions = torch.arange(len(tokens), device=tokens.device)[None]

    def leaf(place: Site | None, y: Tensor) -> Tensor:
        written[place] = y.detach().flatten(0, 1).requires_grad_()
        return written[place].view_as(y)

    def at_site(site: Site):
        def hook(x: Tensor, y: Tensor) -> Tensor:
            flat = x.flatten(0, 1)
            read[site] = flat
            codes[site] = system.decomposition[site].read(flat, token_rows(1, positions))
            return leaf(site, y)

        return hook

    with torch.enable_grad(), contextlib.ExitStack() as stack:
        # What comes into the first block, and not the look-up alone: some models add positions to it, or scale it.
        first = system.model.blocks()[0]
        handle = first.register_forward_pre_hook(lambda _m, args: (leaf(None, args[0]), *args[1:]))
        stack.callback(handle.remove)
        stack.enter_context(system.amending({site: at_site(site) for site in system.sites}))
        stack.enter_context(_frozen(system.model))
        logits = system.model(tokens[None], use_cache=False).logits[0]
    return Linear(tokens, written, codes, read, logits)


@contextlib.contextmanager
def _frozen(model: Subject) -> Iterator[None]:
    """While the block runs, attention patterns and norms' scales have no gradient. Norms inside feed-forward layers are
    the layers' own; those of queries and keys only decide the pattern."""
    config = model.config
    before = config._attn_implementation
    children = [child for block in model.blocks() for child in block.children()]
    norms = [model.final_norm(), *(child for child in children if type(child).__name__.endswith("Norm"))]
    config._attn_implementation = _ATTENTION
    try:
        for norm in norms:
            norm.forward = _still(norm_of(norm, config.hidden_size))
        yield
    finally:
        config._attn_implementation = before
        for norm in norms:
            del norm.forward


def _still(norm: Norm) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        return (norm.still(x, x.detach()) + norm.bias).to(x.dtype)

    return forward


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    *,
    scaling: float,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention with its pattern detached; query `[1, heads, T, d]`. Returns `[1, T, heads, d]`."""
    groups = query.shape[1] // key.shape[1]
    key, value = (part.repeat_interleave(groups, dim=1) for part in (key, value))
    scores = query @ key.transpose(2, 3) * scaling
    if softcap is not None:  # Gemma 2's
        scores = softcap * torch.tanh(scores / softcap)
    length = scores.shape[-1]
    hidden = torch.ones(length, length, dtype=torch.bool, device=scores.device).triu(1)
    if mask is not None:  # a sliding window
        hidden = hidden | (~mask if mask.dtype == torch.bool else mask < 0)
    pattern = scores.masked_fill(hidden, -torch.inf).softmax(-1).detach()
    return (pattern @ value).transpose(1, 2), None


AttentionInterface.register(_ATTENTION, _attend)
