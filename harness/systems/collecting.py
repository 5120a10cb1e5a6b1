"""Running a subject to see what its sites read and write."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from harness.systems.system import Site, System
from kernels.codes import ReadWrite, token_rows
from saes.activations import Activations

if TYPE_CHECKING:
    from harness.corpus import Batch, PackedSplit
    from models.subject import Subject


def watched(model: Subject, sites: Iterable[Site]) -> System:
    """The subject with nothing grafted on: a `System` whose sites can be watched and replaced, not read."""
    return System("collecting", model, dict.fromkeys(sites, cast(ReadWrite, None)))


class _AllSeen(Exception):
    """Every site that is watched has been seen."""


@torch.no_grad()
def collect(model: Subject, split: PackedSplit, indices: Tensor, sites: Iterable[Site]) -> Activations:
    """What the sites read and should write on the sequences `indices` of `split`, in the order of their tokens.

    What comes after the last site is not computed: of a pretrained model, that is often most of it.
    """
    batch, found = split.batch(indices).to(model.device), _Found()
    system = watched(model, sites)

    def keep(site: Site, x: Tensor, y: Tensor) -> None:
        found.keep(site, x, y)
        if len(found.by_site) == len(system.sites):
            raise _AllSeen

    with system.watching(keep), contextlib.suppress(_AllSeen):
        model(batch.input_ids, use_cache=False, logits_to_keep=1)
    return found.activations(batch, indices)


def collect_text(model: Subject, split: PackedSplit, indices: Tensor, sites: Iterable[Site]) -> Activations:
    """`collect`, without the end-of-text tokens of the model: what is measured, is measured on text."""
    found = collect(model, split, indices, sites)
    ids = split.batch(indices).input_ids.reshape(-1).to(found.rows.device)
    end = model.config.eos_token_id
    return found if end is None else found.take((ids != end).nonzero()[:, 0])


@torch.no_grad()
def native_run(
    model: Subject, batch: Batch, indices: Tensor, sites: Iterable[Site], logits_to_keep: int = 0
) -> tuple[Activations, Tensor]:
    """Activations of a batch that holds the sequences `indices`, and the logits `[batch, length or kept, vocabulary]`.

    logits_to_keep: of so many last positions (0: all).
    """
    found = _Found()
    with watched(model, sites).watching(found.keep):
        logits = model(batch.input_ids, use_cache=False, logits_to_keep=logits_to_keep).logits
    return found.activations(batch, indices), logits


class _Found:
    """What the sites of one batch read and should write, as they are met."""

    def __init__(self) -> None:
        self.by_site: dict[Site, tuple[Tensor, Tensor]] = {}

    def keep(self, site: Site, x: Tensor, y: Tensor) -> None:
        flat = x.flatten(0, 1)
        self.by_site[site] = (flat, flat if y is x else y.flatten(0, 1))

    def activations(self, batch: Batch, indices: Tensor) -> Activations:
        """indices: the sequences of the batch."""
        rows = token_rows(len(indices), torch.arange(batch.input_ids.shape[1])[None])
        rows[:, 0] = indices[rows[:, 0]]
        return Activations(rows.to(batch.input_ids.device), cast(Any, self.by_site))
