"""`harness trace`: which units a system's next token runs through, drawn for one prompt."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from harness.base.errors import BadInput
from harness.corpus.tokenizer import shown
from harness.report import trace as drawing
from harness.run.opened import Opened
from harness.systems.attribution import Graph, Node, trace
from harness.systems.system import Site, System
from kernels.codes import Codes
from models.norms import norm_of

PROMOTED = 4  # tokens that are shown of what a unit writes


def write_trace(opened: Opened, prompt: str, followed: int, share: float, out: Path) -> tuple[Path, Graph]:
    """share: of the influence, and of the edges into every node, that is drawn."""
    system, tokenizer = opened.system, opened.evaluation.tokenizer
    assert tokenizer is not None
    ids = [tokenizer.eos_token_id, *tokenizer.encode(prompt, add_special_tokens=False)]
    limit = system.model.config.max_position_embeddings
    if len(ids) < 2:
        raise BadInput("the prompt is empty: there is nothing to trace")
    if len(ids) > limit:
        raise BadInput(f"the prompt has {len(ids)} tokens, {limit} fit")
    tokens = torch.tensor(ids, device=system.device)
    graph = trace(system, tokens, followed=followed, share=share)
    read = _read(system, tokens)

    def word(token: int) -> str:
        return repr(shown(tokenizer, token))[1:-1].replace(" ", "␣")

    def name(node: Node) -> str:
        if node.kind == "token":
            return word(node.unit)
        if node.kind == "prediction":
            return f"{word(node.unit)} {node.value:.0%}"
        where = f"{node.site}, after {word(graph.tokens[node.position])}"
        if node.kind == "rest":
            return f"what no unit explains at {where}"
        said = " ".join(word(token) for token in _promoted(system, node, read))
        return f"unit {node.unit} at {where}: {node.value:.3g}, promotes {said}"

    return drawing.write(drawing.page(graph, system.name, [word(token) for token in ids], name, share), out), graph


@torch.no_grad()
def _read(system: System, tokens: Tensor) -> dict[Site, Tensor]:
    """What the units of every site read on the prompt `[tokens, d_model]`."""
    found: dict[Site, Tensor] = {}

    def note(site: Site, x: Tensor, _y: Tensor) -> None:
        found[site] = x.flatten(0, 1)

    with system.amending({site: partial(note, site) for site in system.sites}):
        system.model(tokens[None], use_cache=False)
    return found


@torch.no_grad()
def _promoted(system: System, node: Node, read: Mapping[Site, Tensor]) -> list[int]:
    """Tokens whose logits the unit's write raises most where it fires on this prompt: what a MONET expert writes hangs
    on what it reads there."""
    assert node.site is not None
    dictionary = system.decomposition[node.site]
    x = read[node.site][node.position : node.position + 1]
    one = Codes(
        torch.tensor([0, 1], device=x.device), torch.tensor([node.unit], device=x.device),
        torch.tensor([node.value], dtype=x.dtype, device=x.device),
        torch.zeros(1, 2, dtype=torch.long, device=x.device), dictionary.n_units,
    )  # fmt: skip
    read_as = norm_of(system.model.final_norm(), x.shape[1]).direction(dictionary.write(one, x)[0])
    logits = system.model.unembedding().to(read_as.dtype) @ read_as
    return logits.topk(PROMOTED).indices.tolist()
