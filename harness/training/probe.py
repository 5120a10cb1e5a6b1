"""How a subject's units are used while it trains: codes of a few fixed training sequences, now and then."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from harness.training.objective import recorded_strengths, sequence

if TYPE_CHECKING:
    from harness.corpus import PackedSplit
    from models.trunk import TrunkForCausalLM

PROBES = 20  # in a whole training: they cost little beside it
SEQUENCES = 4
_FILE = "used_units.safetensors"


class UsageProbe:
    """`measure` adds to which units were ever seen to fire, so what it says depends on the probes before: `save` and
    `load` keep them with a checkpoint."""

    def __init__(self, split: PackedSplit) -> None:
        self.input_ids = torch.stack([sequence(split, index) for index in range(min(SEQUENCES, len(split)))])
        self.used: list[Tensor] = []  # one [n_units] bool for each layer, once something was measured

    @torch.no_grad()
    def measure(self, model: TrunkForCausalLM) -> dict[str, float]:
        """On the probe's sequences, in inference mode:

        - l0: units per token and layer;
        - units_used: share of all units that fired on any probe so far;
        - unevenness: log N + Σ z log z, z the units' shares of the summed strength; mean over layers.
        """
        training = model.training
        model.eval()
        with recorded_strengths(model) as layers:
            model(input_ids=self.input_ids.to(model.device), use_cache=False, logits_to_keep=1)
        model.train(training)
        if not self.used:
            self.used = [torch.zeros(layer.codes.n_units, dtype=torch.bool) for layer in layers]
        l0, unevenness = 0.0, 0.0
        for used, layer in zip(self.used, layers, strict=True):
            units = layer.codes.units.cpu()
            used[units] = True
            l0 += layer.codes.nnz / layer.codes.n_tokens / len(layers)
            mass = torch.zeros(layer.codes.n_units, dtype=torch.float64)
            mass.index_add_(0, units, layer.values.double().cpu())
            z = mass[mass > 0] / mass.sum()
            unevenness += float(math.log(layer.codes.n_units) + (z * z.log()).sum()) / len(layers) if len(z) else 0.0
        fired = sum(int(used.sum()) for used in self.used)
        return {"l0": l0, "units_used": fired / sum(len(used) for used in self.used), "unevenness": unevenness}

    def save(self, folder: Path) -> None:
        save_file({str(layer): used for layer, used in enumerate(self.used)}, folder / _FILE)

    def load(self, folder: Path) -> None:
        stored = load_file(folder / _FILE)
        self.used = [stored[str(layer)] for layer in range(len(stored))]


def probe_every(steps: int, log_every: int) -> int:
    """Steps between two probes: whole points of the curve, and about `PROBES` in all."""
    return log_every * max(1, math.ceil(steps / log_every / PROBES))
