"""What is left of a model when each token keeps only some of its units: by chance, by attribution, and against it.

Taking all of something away lets units cancel: two that say opposite things do nothing together, and neither is missed.
A subset parts them. So the loss is taken with a share of each token's units kept, in every site at once: drawn at
random; those that matter most first (what suffices) or last (what is necessary); and chosen against the model, by steps
along the gradient of the loss on the mask (the stress test of parameter decomposition, there with masks between 0 and
1; here units are on or off, and a token keeps as many as it may). A unit matters by how far its absence moves what the
model itself thinks likeliest, to first order and either way: |∂nats/∂mask| at 1. (By the true token, keeping what helps
makes a better model than all units; by the sign, what holds others back is thrown away first.) A dictionary's error and
what no unit owns stay. [U: the order, the steps]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from harness.corpus.stored import Batch
from harness.systems.system import Site, System
from kernels.codes import Codes

STEPS = 20  # along the gradient
MEMORY = 0.8  # of earlier gradients, at each step


@dataclass(frozen=True)
class Native:
    """A batch as the system runs it. keys `[nnz]`: token · n_units + unit of every entry of a site, ascending; lengths
    `[tokens]`: entries of each token."""

    keys: dict[Site, Tensor]
    lengths: dict[Site, Tensor]

    @staticmethod
    @torch.no_grad()
    def of(system: System, batch: Batch) -> Native:
        keys: dict[Site, Tensor] = {}
        lengths: dict[Site, Tensor] = {}
        for site, encoded in system.encode(batch.input_ids).items():
            keys[site] = _keys(encoded.codes).sort().values
            lengths[site] = encoded.codes.row_lengths()
        return Native(keys, lengths)

    def everything(self, device: torch.device) -> dict[Site, Tensor]:
        return {site: torch.ones(len(keys), device=device) for site, keys in self.keys.items()}


def losses(
    system: System, batch: Batch, native: Native, masks: Mapping[Site, Tensor], targets: Tensor | None = None
) -> Tensor:
    """Nats of every target `[batch · (length − 1)]` (default: the tokens that follow) with every entry's coefficient
    times its mask; units that were not there natively stay off."""
    taps = {site: partial(_masked, native.keys[site], mask) for site, mask in masks.items()}
    with system.tapped(taps, error="keep", rest="keep"):
        logits = system.model(batch.input_ids, use_cache=False).logits[:, :-1]
    targets = batch.input_ids[:, 1:].reshape(-1) if targets is None else targets
    return torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), targets, reduction="none")


def helps(system: System, batch: Batch, native: Native) -> dict[Site, Tensor]:
    """What every entry adds to the model's own likeliest token, in nats to first order, by site `[nnz]`."""
    with torch.no_grad():
        said = system.model(batch.input_ids, use_cache=False).logits[:, :-1].argmax(-1).reshape(-1)
    leaves = {site: mask.requires_grad_() for site, mask in native.everything(system.device).items()}
    losses(system, batch, native, leaves, said).sum().backward()
    return {site: torch.zeros_like(leaf) if leaf.grad is None else -leaf.grad for site, leaf in leaves.items()}


def kept(
    order: Mapping[Site, Tensor], native: Native, wanted: Callable[[Tensor], Tensor], generator: torch.Generator
) -> dict[Site, Tensor]:
    """Masks that keep `wanted(entries)` of each token's entries at each site, those with the largest `order` `[nnz]`. A
    token's number is rounded up or down at random, so that few units are kept as often as many."""
    found: dict[Site, Tensor] = {}
    for site, values in order.items():
        lengths = native.lengths[site]
        drawn = torch.rand(len(lengths), generator=generator).to(lengths.device)
        number = (wanted(lengths) + drawn).floor().clamp_max(lengths)
        token = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
        by_value = values.argsort(descending=True, stable=True)
        ordered = by_value[token[by_value].argsort(stable=True)]  # token after token, the largest first
        first = lengths.cumsum(0) - lengths
        rank = torch.empty_like(token)
        rank[ordered] = torch.arange(len(token), device=token.device) - first[token]
        found[site] = (rank < number[token]).float()
    return found


def chosen_against(
    system: System, batch: Batch, native: Native, share: float, help_: Mapping[Site, Tensor],
    generator: torch.Generator,
) -> Tensor:  # fmt: skip
    """Nats of every target under the worst masks found in `STEPS` steps: keep what helps least, look where the loss
    rises from there, keep what harms most."""
    harm = {site: -values for site, values in help_.items()}
    worst: Tensor | None = None
    for _ in range(STEPS):
        masks = kept(harm, native, lambda lengths: share * lengths, generator)
        with torch.enable_grad():
            leaves = {site: mask.requires_grad_() for site, mask in masks.items()}
            found = losses(system, batch, native, leaves)
            found.sum().backward()
        if worst is None or found.sum() > worst.sum():
            worst = found.detach()
        for site, leaf in leaves.items():
            if leaf.grad is not None:
                harm[site] = MEMORY * harm[site] + (1 - MEMORY) * leaf.grad
    assert worst is not None
    return worst


def _masked(keys: Tensor, mask: Tensor, codes: Codes, _x: Tensor) -> Codes:
    place, there = _found(keys, _keys(codes))
    return Codes(
        codes.indptr, codes.units, codes.values * torch.where(there, mask[place], 0), codes.rows, codes.n_units
    )


def _found(keys: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Where `wanted` stand among ascending `keys`, and which of them do."""
    if not len(keys):
        return torch.zeros_like(wanted), torch.zeros_like(wanted, dtype=torch.bool)
    place = torch.searchsorted(keys, wanted).clamp_max(len(keys) - 1)
    return place, keys[place] == wanted


def _keys(codes: Codes) -> Tensor:
    return codes.token_of_entry() * codes.n_units + codes.units
