"""What a run asks of a model or a dictionary before it spends anything on it: the rules of models/rules.py."""

from __future__ import annotations

from functools import partial

import torch

from harness.base.errors import BadInput
from harness.corpus.stored import PackedSplit
from harness.systems.system import Site, System
from kernels.codes import Codes
from models import rules
from models.subject import Subject

SEQUENCES, LENGTH = 2, 64  # enough for every rule, and quick where the plain kernels run


def refuse_model(name: str, model: Subject, split: PackedSplit) -> None:
    """Raises BadInput, one line that names layer, rule and what was seen, where a layer is not what it says."""
    if (found := rules.broken(model, _few(split))) is not None:
        raise BadInput(f"{name} is not measured: {found}")


@torch.no_grad()
def refuse_system(system: System, split: PackedSplit) -> None:
    """As `refuse_model`, also of the dictionaries."""
    refuse_model(system.name, system.model, split)
    if system.native:
        return
    ids = _few(split).to(system.device)
    seen: dict[Site, tuple[Codes, torch.Tensor]] = {}

    def tap(site: Site, codes: Codes, x: torch.Tensor) -> Codes:
        seen[site] = (codes, x)
        return codes

    with system.tapped({site: partial(tap, site) for site in system.sites}, error="keep", rest="keep"):
        system.model(ids, use_cache=False)
    for site, (codes, x) in seen.items():
        dictionary, where = system.decomposition[site], f"the dictionary at {site}"
        found = [
            *rules.broken_codes(where, codes, ids.numel(), dictionary.n_units),
            *rules.broken_write(where, dictionary, codes, x),
        ]
        for broken in found:
            raise BadInput(f"{system.name} is not measured: {broken}")


def _few(split: PackedSplit) -> torch.Tensor:
    """`[sequences, T]`"""
    return split.batch(torch.arange(min(SEQUENCES, len(split)))).input_ids[:, :LENGTH]
