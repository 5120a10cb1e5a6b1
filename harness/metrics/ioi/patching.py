"""Units of a sentence put into its twin: how much of what the sentence says comes with them?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from harness.metrics.ioi.prompts import Prompts
from harness.systems.system import Site, System
from kernels.codes import Codes


@dataclass(frozen=True)
class Native:
    """What a batch of prompts does by itself. clean, twin: units' values by site `[tokens, units]`; distribution: log
    probabilities after the sentence `[n, vocabulary]`; difference: the answer's logit less the wrong name's `[n]`, of
    the sentence and of its twin."""

    clean: dict[Site, Tensor]
    twin: dict[Site, Tensor]
    distribution: Tensor
    difference: Tensor
    difference_twin: Tensor


def difference(logits: Tensor, of: Prompts) -> Tensor:
    """`[n]` of logits `[n, vocabulary]`."""
    at = torch.arange(len(of), device=logits.device)
    return logits[at, of.answer.to(logits.device)] - logits[at, of.wrong.to(logits.device)]


@torch.no_grad()
def native(system: System, of: Prompts) -> Native:
    values, last = [], []
    for ids in (of.clean, of.twin):
        ids = ids.to(system.device)
        values.append({site: encoded.codes.dense() for site, encoded in system.encode(ids).items()})
        last.append(system.model(ids, use_cache=False, logits_to_keep=1).logits[:, -1].float())
    clean, twin = last
    return Native(values[0], values[1], clean.log_softmax(-1), difference(clean, of), difference(twin, of))


def attribution(system: System, of: Prompts, before: Native) -> dict[Site, Tensor]:
    """What putting in the sentence's value of each unit would do to the twin's difference of logits, to first order:
    gradient at the twin times the change of value, summed over prompts and positions. `[units]` by site"""
    values: dict[Site, Tensor] = {}

    def tap(site: Site, codes: Codes, _x: Tensor) -> Codes:
        values[site] = codes.dense().detach().requires_grad_()
        return _from(values[site], codes.rows)

    with torch.enable_grad():
        with system.tapped({site: partial(tap, site) for site in system.sites}, error="keep", rest="keep"):
            logits = system.model(of.twin.to(system.device), use_cache=False, logits_to_keep=1).logits[:, -1].float()
        total = difference(logits, of).sum()
        gradients = torch.autograd.grad(total, list(values.values()), allow_unused=True)
    found = {}
    for (site, own), gradient in zip(values.items(), gradients, strict=True):
        slope = torch.zeros_like(own) if gradient is None else gradient
        found[site] = (slope * (before.clean[site] - own.detach())).sum(0)
    return found


@torch.no_grad()
def patched(system: System, of: Prompts, before: Native, chosen: Mapping[Site, Tensor]) -> tuple[Tensor, Tensor]:
    """The twin with these units `[units]` bool at the sentence's values, at every position: difference of logits, and
    the divergence KL(sentence ‖ twin so patched) in nats, both `[n]`. A dictionary's error stays the twin's."""

    def tap(site: Site, codes: Codes, _x: Tensor) -> Codes:
        return _from(torch.where(chosen[site], before.clean[site], codes.dense()), codes.rows)

    with system.tapped({site: partial(tap, site) for site in chosen}, error="keep", rest="keep"):
        logits = system.model(of.twin.to(system.device), use_cache=False, logits_to_keep=1).logits[:, -1].float()
    said = logits.log_softmax(-1)
    divergence = (before.distribution.exp() * (before.distribution - said)).sum(-1)
    return difference(logits, of), divergence


def _from(values: Tensor, rows: Tensor) -> Codes:
    """Codes with every unit in every row, so that gradients reach those that are silent."""
    tokens, units = values.shape
    indptr = torch.arange(tokens + 1, device=values.device) * units
    return Codes(indptr, torch.arange(units, device=values.device).repeat(tokens), values.reshape(-1), rows, units)
