"""What is read of a system for this metric: codes and site outputs, on as much of dev as of eval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from harness.systems.directions import competing
from harness.systems.evaluation import Evaluation
from harness.systems.system import Encoded, Site
from kernels.codes import Codes


@dataclass(frozen=True)
class Read:
    """Of one split, by site: encoded, and what the site adds to the residual stream or, for resid_post, leaves in it
    `[tokens, d_model]`. counted: which tokens are text; the others have no codes."""

    encoded: dict[Site, Encoded]
    written: dict[Site, Tensor]
    counted: Tensor


@torch.no_grad()
def read(evaluation: Evaluation, *, dev: bool) -> Read:
    """The first `codes_sequences` of a split. The codes of eval are those that are stored."""
    system, sequences = evaluation.system, evaluation.codes_sequences
    parts: dict[Site, list[Encoded]] = {site: [] for site in system.sites}
    written: dict[Site, list[Tensor]] = {site: [] for site in system.sites}
    counted = []

    def watch(site: Site, _x: Tensor, y: Tensor) -> None:
        written[site].append(y.flatten(0, 1).float().cpu())

    for batch in evaluation.batches(sequences, dev=dev):
        counts = evaluation.counted(batch.input_ids).reshape(-1)
        counted.append(counts.cpu())
        with system.watching(watch):  # as the model runs by itself, without a graft
            system.model(batch.input_ids, use_cache=False, logits_to_keep=1)
        if dev:
            for site, encoded in system.encode(batch.input_ids).items():
                keep = counts[encoded.codes.token_of_entry()]
                parts[site].append(Encoded(encoded.codes.keep(keep).cpu(), encoded.strengths[keep].cpu()))
    if dev:
        encoded = {
            site: Encoded(Codes.cat([one.codes for one in pieces]), torch.cat([one.strengths for one in pieces]))
            for site, pieces in parts.items()
        }
    else:
        encoded = {site: evaluation.load_codes(site) for site in system.sites}
    return Read(encoded, {site: torch.cat(pieces) for site, pieces in written.items()}, torch.cat(counted))


@dataclass(frozen=True)
class RandomCodes:
    """By site, of both splits."""

    dev: list[Encoded]
    eval: list[Encoded]


def random_codes(dev: Read, evaluation: Read, seed: int) -> RandomCodes:
    """Codes of random directions in place of the units: as many at each site, competing for as many places on every
    token (`systems/directions.py`). The same directions on both splits."""
    made = RandomCodes([], [])
    for place, (site, y) in enumerate(dev.written.items()):
        own = dev.encoded[site].codes
        generator = np.random.default_rng([seed, 5, place])
        drawn = torch.from_numpy(generator.standard_normal((own.n_units, y.shape[1])).astype(np.float32))
        mean = y[dev.counted].mean(0)
        for split, found in ((dev, made.dev), (evaluation, made.eval)):
            lengths = split.encoded[site].codes.row_lengths().numpy()
            codes = competing(split.written[site] - mean, drawn / drawn.norm(dim=1, keepdim=True), lengths)
            found.append(Encoded(codes, codes.values))
    return made


def codes_of(split: Read) -> list[Codes]:
    """By site, in the order of the sites."""
    return [encoded.codes for encoded in split.encoded.values()]


def offsets(parts: Sequence[Codes]) -> list[int]:
    """The first unit of every site where the units of all sites are counted through, and their number."""
    return np.cumsum([0, *(codes.n_units for codes in parts)]).tolist()
