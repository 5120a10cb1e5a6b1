"""What an architecture is asked by itself, on a small model of it: by `harness check NAME` and by our own tests.

Beside the rules that a run asks of a model (rules.py), in three formats of numbers: gradients, saving, caches, padding,
and that no token sees a later one in training either.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from models import rules
from models.registry import ARCHITECTURES
from models.rules import Broken
from models.trunk import TrunkForCausalLM

VOCAB, LENGTH = 64, 24
SMALL = {"d_model": 32, "n_layers": 2, "n_heads": 2, "vocab_size": VOCAB, "max_position_embeddings": 32}
CLOSE = 1e-9  # of the largest logit, in float64


def small(name: str, dtype: torch.dtype = torch.float64, **settings: Any) -> TrunkForCausalLM:
    """A model of the sizes that its config states as `small`, in eval mode, away from its initialisation: small weights
    and unit norms hide what is wrong by little. ValueError where `name` or a setting is unknown."""
    architecture = ARCHITECTURES.named(name)
    wanted = {**SMALL, **architecture.config_class.small, **settings}
    config = architecture.config(**{key: value for key, value in wanted.items() if key not in architecture.fixed})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = architecture.model_class(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    nn.Module.to(model, dtype=dtype)
    return model.eval()


def tokens(batch: int = 2, length: int = LENGTH, seed: int = 1) -> Tensor:
    return torch.randint(VOCAB, (batch, length), generator=torch.Generator().manual_seed(seed))


def findings(name: str, **settings: Any) -> list[Broken]:
    """All that is broken; empty where nothing is."""
    found = []
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        said = f"in {str(dtype).removeprefix('torch.')}, "
        model = small(name, dtype, **settings)
        here = [Broken(said + one.where, one.rule, one.seen) for one in rules.every(model, tokens())]
        found += [] if found else here  # what is wrong in one format is wrong in the others, too
    model = small(name, **settings)
    return [*found, *_saved(model), *_cached(model), *_padded(model), *_causal_in_training(model), *_gradients(model)]


def _far(a: Tensor, b: Tensor) -> str | None:
    """How far apart, where that is more than rounding."""
    if a.shape != b.shape:
        return f"shapes {tuple(a.shape)} and {tuple(b.shape)}"
    apart = float((a - b).abs().max() / b.abs().max())
    return None if apart <= CLOSE else f"logits differ by {apart:.1e} of the largest"


@torch.no_grad()
def _saved(model: TrunkForCausalLM) -> Iterator[Broken]:
    with TemporaryDirectory() as folder:
        model.save_pretrained(Path(folder))
        loaded = AutoModelForCausalLM.from_pretrained(folder).eval()
    rule = "a model that was saved and loaded says the same"
    if type(loaded) is not type(model):
        yield Broken("the model", rule, f"it comes back as {type(loaded).__name__}")
    elif seen := _far(loaded(tokens()).logits, model(tokens()).logits):
        yield Broken("the model", rule, seen)


@torch.no_grad()
def _cached(model: TrunkForCausalLM) -> Iterator[Broken]:
    ids, past, pieces = tokens(), None, []
    for start, stop in ((0, 9), (9, 10), (10, LENGTH)):
        out = model(ids[:, start:stop], past_key_values=past, use_cache=True)
        past = out.past_key_values
        pieces.append(out.logits)
    if seen := _far(torch.cat(pieces, 1), model(ids).logits):
        yield Broken("the model", "with a cache it says the same, token by token", seen)


@torch.no_grad()
def _padded(model: TrunkForCausalLM) -> Iterator[Broken]:
    ids = tokens(batch=1)
    padded = torch.cat([torch.zeros(1, 3, dtype=torch.long), ids], 1)
    mask = torch.cat([torch.zeros(1, 3, dtype=torch.long), torch.ones_like(ids)], 1)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    logits = model(padded, attention_mask=mask, position_ids=positions).logits[:, 3:]
    if seen := _far(logits, model(ids).logits):
        yield Broken("the model", "padding on the left changes nothing for the text", seen)


@torch.no_grad()
def _causal_in_training(model: TrunkForCausalLM) -> Iterator[Broken]:
    """Batch statistics leak by what they are; an architecture that has them documents it."""
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
        return
    ids, cut = tokens(), LENGTH // 2
    changed = ids.clone()
    changed[:, cut:] = (changed[:, cut:] + 1) % VOCAB
    model.train()
    seen = _far(model(changed).logits[:, :cut], model(ids).logits[:, :cut])
    model.eval()
    if seen:
        yield Broken("the model", "no token sees a later one in training", seen)


def _gradients(model: TrunkForCausalLM) -> Iterator[Broken]:
    """Of a table, the rows that were looked up have one, and so have sub-keys; of all else, nearly every entry."""
    model.train()
    ids = tokens(batch=16, length=30)
    model(ids, labels=ids).loss.backward()
    roles = model.parameter_roles()
    for name, parameter in model.named_parameters():
        gradient = parameter.grad
        if gradient is None:
            yield Broken(name, "the loss has a gradient in every parameter", "none")
            continue
        gradient = gradient.to_dense() if gradient.is_sparse else gradient
        if not bool(gradient.isfinite().all()):
            yield Broken(name, "gradients are finite", f"{int((~gradient.isfinite()).sum())} are not")
        reached = gradient.flatten(1).abs().sum(1) > 0 if gradient.ndim > 1 else gradient != 0
        least = 0.0 if roles[name] in ("table", "router") else 0.9
        if float(reached.float().mean()) <= least:
            yield Broken(name, "the loss has a gradient in every parameter", f"{float(reached.float().mean()):.0%}")
