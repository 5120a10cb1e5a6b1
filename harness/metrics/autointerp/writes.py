"""What units write: the mean write vector of each, the tokens it promotes, and which units write alike."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import torch
from torch import Tensor

from harness.corpus.tokenizer import shown
from harness.metrics.autointerp.firings import Firings
from harness.systems.evaluation import Evaluation
from harness.systems.system import Site
from kernels.codes import Codes
from models.norms import norm_of

_PIECE = 1 << 14  # entries whose write vectors are held at once


@torch.no_grad()
def mean_writes(evaluation: Evaluation, sites: Mapping[Site, Firings], sequences: int) -> dict[Site, Tensor]:
    """Mean of what a unit of value one writes, over its entries on the first `sequences`: `[columns, d_model]` float32,
    zero where the unit does not fire there. Exact where a unit writes one direction whatever the input."""
    system = evaluation.system
    sums: dict[Site, Tensor] = {}
    counts: dict[Site, Tensor] = {}
    columns = {site: torch.full((firings.n_units,), -1) for site, firings in sites.items()}
    for site, firings in sites.items():
        columns[site][torch.as_tensor(firings.units)] = torch.arange(len(firings.units))

    def add(site: Site, codes: Codes, x: Tensor) -> Codes:
        column = columns[site][codes.units.cpu()]
        entries = (column >= 0).nonzero()[:, 0]
        n = len(sites[site].units)
        if site not in sums:
            sums[site], counts[site] = torch.zeros(n, x.shape[1]), torch.zeros(n)
        for piece in entries.split(_PIECE):
            written = system.decomposition[site].writes(codes, x, piece.to(codes.units.device)).float().cpu()
            sums[site].index_add_(0, column[piece], written)
            counts[site].index_add_(0, column[piece], torch.ones(len(piece)))
        return codes

    # As System.encode does it: an edit does not see x, and what a unit writes may depend on it.
    taps = {site: partial(add, site) for site in sites}
    for batch in evaluation.batches(min(sequences, evaluation.codes_sequences)):
        with system.tapped(taps, error="keep", rest="keep"):
            system.model(batch.input_ids, use_cache=False, logits_to_keep=1)
    return {site: total / counts[site].clamp_min(1)[:, None] for site, total in sums.items()}


@torch.no_grad()
def logits_of(evaluation: Evaluation, write: Tensor, most: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The tokens whose logits `write` `[d_model]` raises and lowers most, straight through the final norm's scale and
    the output head (the "logit lens", nostalgebraist 2020: what later layers make of it is left out)."""
    model, tokenizer = evaluation.system.model, evaluation.tokenizer
    if tokenizer is None or not bool(write.any()):
        return (), ()
    head = model.unembedding()  # [vocabulary, d_model]
    read_as = norm_of(model.final_norm(), model.config.hidden_size).direction(write.to(head.device))
    logits = (head.to(read_as.dtype) @ read_as).float().cpu()
    raised, lowered = logits.topk(most).indices.tolist(), (-logits).topk(most).indices.tolist()
    return tuple(shown(tokenizer, i) for i in raised), tuple(shown(tokenizer, i) for i in lowered)


def neighbours(firings: Firings, column: int, writes: Tensor, each: int, least: int) -> list[np.ndarray]:
    """Tokens of the units most like this one: `each` by the cosine of what they write, and `each` by lift, P(both) /
    P(one)P(other), which always-on units do not lead. Only units that fire at least `least` times, and together with
    this one at least 3 times for lift."""
    counts = firings.counts
    often = (counts >= least) & (np.arange(len(counts)) != column)
    norms = writes.norm(dim=1).clamp_min(1e-12)
    cosine = ((writes @ writes[column]) / (norms * norms[column])).numpy()
    together = firings.together(column)
    lift = together * firings.n_tokens / (counts.astype(float) * counts[column])
    chosen: list[int] = []
    for score, allowed in ((cosine, often), (lift, often & (together >= 3))):
        ranked = np.argsort(np.where(allowed, -score, np.inf), kind="stable")[:each]
        chosen += [int(index) for index in ranked if allowed[index] and index not in chosen]
    return [firings.of_column(index)[0] for index in chosen]
