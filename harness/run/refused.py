"""What a run asks of a model or a dictionary before it spends anything on it: the rules of models/rules.py."""

from __future__ import annotations

import torch

from harness.base.errors import BadInput
from harness.corpus.stored import PackedSplit
from harness.systems.system import System
from models import rules
from models.subject import Subject

SEQUENCES, LENGTH = 2, 64  # enough for every rule, and quick where the plain kernels run


def refuse_model(name: str, model: Subject, split: PackedSplit) -> None:
    """Raises BadInput, one line that names layer, rule and what was seen, where a layer is not what it says."""
    if (found := rules.broken(model, _few(split))) is not None:
        raise BadInput(f"{name} is not measured: {found}")


@torch.no_grad()
def refuse_system(system: System, split: PackedSplit) -> None:
    """As `refuse_model`, also of the codes of dictionaries that are read."""
    refuse_model(system.name, system.model, split)
    if system.native:
        return
    ids = _few(split).to(system.device)
    for site, encoded in system.encode(ids).items():
        units = system.decomposition[site].n_units
        for found in rules.broken_codes(f"the dictionary at {site}", encoded.codes, ids.numel(), units):
            raise BadInput(f"{system.name} is not measured: {found}")


def _few(split: PackedSplit) -> torch.Tensor:
    """`[sequences, T]`"""
    return split.batch(torch.arange(min(SEQUENCES, len(split)))).input_ids[:, :LENGTH]
