"""What taking a unit away does, against taking away as much of a random direction.

A reader's rule says when a unit fires; whether that matters to the model is another question. In contexts where the
unit fires it is set to zero, or a random direction of the norm of what it writes is taken away; both are read as the
divergence of the next token's distribution from the native one. [U: ours]
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from harness.metrics.autointerp.sampling import Drawn
from harness.systems.evaluation import Evaluation
from harness.systems.prefix import Entries, Prefix
from harness.systems.system import Site

CONTEXTS = 12  # of each unit
_STREAM = 6  # of a unit's generator
_FLOOR = 1e-9  # bits: below, it is rounding


def log_ratios(units: Sequence[Drawn], evaluation: Evaluation, seed: int) -> np.ndarray:
    """log of the mean divergence without the unit over that without the random direction. `[units]`"""
    split, system = evaluation.split, evaluation.system
    sites = {str(site): site for site in system.sites}
    rows: list[tuple[int, int]] = []  # unit, token
    directions = []
    for index, drawn in enumerate(units):
        generator = drawn.firings.generator(drawn.column, seed + _STREAM)
        tokens, _ = drawn.firings.of_column(drawn.column)
        rows += [(index, int(t)) for t in generator.choice(tokens, min(CONTEXTS, len(tokens)), replace=False)]
        directions.append(generator.standard_normal(system.model.config.hidden_size))
    unit, token = (np.array(column) for column in zip(*rows, strict=True))
    random = torch.as_tensor(np.stack(directions), dtype=torch.float32)
    random = random / random.norm(dim=1, keepdim=True)
    sums = np.zeros((len(units), 2))
    for sequence in np.unique(token // split.length):
        here = np.flatnonzero(token // split.length == sequence)
        prefix = Prefix(system, split.batch(torch.tensor([sequence])).input_ids[0].to(system.device))
        position = token[here] % split.length
        of_site: dict[Site, list[int]] = {}
        for place, index in enumerate(unit[here]):
            of_site.setdefault(sites[units[index].firings.site], []).append(place)
        for site, places in of_site.items():
            of = unit[here[places]]
            numbers = np.array([int(units[i].firings.units[units[i].column]) for i in of])
            at, numbers = (torch.as_tensor(values, device=system.device) for values in (position[places], numbers))
            found = _divergences(prefix, site, at, numbers, random[torch.as_tensor(of)].to(system.device))
            np.add.at(sums, of, found)
    return np.log(sums[:, 0] + _FLOOR) - np.log(sums[:, 1] + _FLOOR)


def _divergences(
    prefix: Prefix, site: Site, positions: torch.Tensor, units: torch.Tensor, random: torch.Tensor
) -> np.ndarray:
    """KL(native ‖ edited) in bits of every position, without the unit and without the random direction. `[n, 2]`"""
    n = len(positions)
    silent = Entries(torch.arange(n, device=positions.device), units, torch.zeros(n, device=positions.device))
    native = prefix.logits(positions).double().log_softmax(-1)
    without = prefix.logits(positions, {site: silent}).double().log_softmax(-1)
    size = prefix.strength(site, positions, units)  # [n]
    turned = prefix.logits(positions, None, {site: -size[:, None] * random.to(size.dtype)}).double().log_softmax(-1)
    found = [(native.exp() * (native - edited)).sum(-1).clamp_min(0) / np.log(2) for edited in (without, turned)]
    return torch.stack(found, 1).cpu().numpy()
