"""Does what a unit writes say what taking it away does? Predicted from its write alone, and measured in the model.

Predicted: what the unit writes, through the final norm with its scale frozen and the unembedding: the direct path, all
later layers aside. Measured: the logits without the unit (its coefficient set to zero at one position, everything
downstream running; a dictionary's error at the site stays what it is) less those with it. Both are vectors over the
vocabulary, compared with their mean over it taken off, since a constant changes no probability. [U: ours]
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from harness.corpus.stored import PackedSplit
from harness.metrics.faithfulness.sampling import Chunk, Sample, chunks
from harness.systems.prefix import Entries, Prefix
from harness.systems.system import Site, System
from models.norms import norm_of


@dataclass(frozen=True)
class Agreement:
    """Sums over the contexts of each unit `[units]`: products of what is predicted (p) and what is measured (m)."""

    pp: np.ndarray
    mm: np.ndarray
    pm: np.ndarray

    def correlation(self) -> np.ndarray:
        """Cosine of the two over all contexts and outcomes. 0 where nothing moves."""
        return np.divide(self.pm, np.sqrt(self.pp * self.mm), out=np.zeros(len(self.pm)), where=self.pp * self.mm > 0)

    def explained(self) -> np.ndarray:
        """Share of the measured effect's square that the prediction leaves nothing of: 1 − ‖m − p‖² / ‖m‖², and −1 at
        least, since a unit that does nearly nothing can be missed by any factor."""
        missed = self.mm - 2 * self.pm + self.pp
        share = 1 - np.divide(missed, self.mm, out=np.full(len(self.mm), np.inf), where=self.mm > 0)
        return np.maximum(share, -1)


@dataclass(frozen=True)
class Effects:
    """units: of the sampled units; random: of directions drawn at random, as long as what the unit writes there and as
    far along what comes to the final norm, in the same contexts; through_units: in place of a prediction the effect
    with what no unit explains held at every later site, against the whole effect."""

    units: Agreement
    random: Agreement
    through_units: Agreement


@torch.no_grad()
def effects(system: System, split: PackedSplit, sample: Sample, rng: np.random.Generator) -> Effects:
    sums = np.zeros((3, len(sample.units), 3))
    width = system.model.config.hidden_size
    drawn = torch.from_numpy(rng.standard_normal((len(sample.units), width)).astype(np.float32))
    drawn = drawn / drawn.norm(dim=1, keepdim=True)
    for chunk in chunks(system, split, sample.token, variants=6):
        of = sample.unit[chunk.which]
        native = chunk.prefix.logits(chunk.positions)
        edits, written = removal(chunk, sample)
        without = chunk.prefix.logits(chunk.positions, edits) - native
        there = chunk.prefix.residual(chunk.positions)
        pushed = -turned_about(there, written, drawn[torch.from_numpy(of)].to(written))
        pushes = {site: torch.zeros_like(written).index_copy(0, e.row, pushed[e.row]) for site, e in edits.items()}
        moved = chunk.prefix.logits(chunk.positions, None, pushes) - native
        held = chunk.prefix.logits(chunk.positions, edits, held=True) - native
        found = (
            (direct(chunk.prefix, chunk.positions, -written), without),
            (direct(chunk.prefix, chunk.positions, pushed), moved),
            (held, without),
        )
        for place, (predicted, measured) in enumerate(found):
            np.add.at(sums[place], of, _products(predicted, measured))
    return Effects(*(Agreement(*each.T) for each in sums))


def turned_about(residual: Tensor, written: Tensor, drawn: Tensor) -> Tensor:
    """`written` with its part across `residual` turned to where `drawn` points, all `[n, d_model]`. What lies along the
    residual moves the norm's scale, which the prediction leaves out: units have more of it than a direction has by
    chance, and a control without it is the easier one."""
    along = torch.nn.functional.normalize(residual.to(written), dim=1)

    def across(vector: Tensor) -> Tensor:
        return vector - (vector * along).sum(1, keepdim=True) * along

    size = across(written).norm(dim=1, keepdim=True)
    return written - across(written) + size * torch.nn.functional.normalize(across(drawn), dim=1)


def removal(chunk: Chunk, sample: Sample) -> tuple[dict[Site, Entries], Tensor]:
    """Every context of a chunk without its unit, and what the unit writes there `[n, d_model]`."""
    device = chunk.positions.device
    of = sample.unit[chunk.which]
    number = torch.tensor([sample.units[place][1] for place in of], device=device)
    value = torch.as_tensor(sample.value[chunk.which], device=device)
    written = torch.zeros(len(of), chunk.prefix.system.model.config.hidden_size, device=device)
    edits: dict[Site, Entries] = {}
    for site in dict.fromkeys(sample.units[place][0] for place in of):
        here = torch.tensor([i for i, place in enumerate(of) if sample.units[place][0] == site], device=device)
        edits[site] = Entries(here, number[here], torch.zeros(len(here), device=device))
        written[here] = chunk.prefix.written(site, chunk.positions[here], number[here], value[here]).float()
    return edits, written


def direct(prefix: Prefix, positions: Tensor, change: Tensor) -> Tensor:
    """`[n, vocabulary]`: what `change` `[n, d_model]` of the last residual does to the logits by itself, the final
    norm's scale frozen at what it is there."""
    model = prefix.system.model
    norm = norm_of(model.final_norm(), model.config.hidden_size)
    head = model.unembedding()
    return (norm.still(change, prefix.residual(positions)).to(head.dtype) @ head.T).float()


def _products(predicted: Tensor, measured: Tensor) -> np.ndarray:
    """`[n, 3]`: p·p, m·m and p·m over the vocabulary, float64, both without their mean."""
    p, m = (z.double() - z.double().mean(-1, keepdim=True) for z in (predicted, measured))
    return torch.stack([p.square().sum(-1), m.square().sum(-1), (p * m).sum(-1)], 1).cpu().numpy()
