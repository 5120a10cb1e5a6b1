"""Loss against how many of each token's units are kept, in several orders.

Losses are bits per byte above the model, and shares of what is lost without any unit: a dictionary that explains little
loses little without it, since its error stays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from harness.metrics.faithfulness import subsets
from harness.metrics.faithfulness.subsets import Native
from harness.systems.evaluation import Evaluation
from harness.tables.measurement import Direction, Measurement, not_applicable
from harness.tables.statistics import resampled_sums

VERSION = 2
SHARES = (0.9, 0.75, 0.5, 0.25, 0.1, 0.05)
AGAINST = (0.9, 0.75, 0.5)  # each takes `subsets.STEPS` passes forward and back
COUNTS = (1, 2, 4, 8, 16, 32, 64, 128)  # units of a token and site: what systems of any width can be read at
ENOUGH = 0.9

Way = Literal["random", "best", "worst", "against", "count", "none"]
Run = tuple[Way, float]
RUNS: tuple[Run, ...] = (
    *((way, share) for way in ("random", "best", "worst") for share in SHARES),
    *(("against", share) for share in AGAINST),
    *(("count", float(count)) for count in COUNTS),
    ("none", 0.0),
)


@dataclass(frozen=True)
class Curves:
    """Nats above the native model by document and run of `RUNS` `[documents, runs]`, and bytes of each document."""

    nats: np.ndarray
    n_bytes: np.ndarray
    resamples: int

    def measurements(self) -> list[Measurement]:
        columns = np.concatenate([self.nats, self.n_bytes[:, None]], 1)
        columns = columns[self.n_bytes > 0]
        saw = f"{len(columns):,} documents"

        def bits(sums: np.ndarray) -> np.ndarray:
            return sums[:, :-1] / (np.log(2) * sums[:, -1:])

        losses = np.concatenate([bits(columns.sum(0, keepdims=True)), bits(resampled_sums(columns, self.resamples))])

        def stated(name: str, values: np.ndarray, unit: str, direction: Direction = "none") -> Measurement:
            return Measurement(
                f"faithfulness/{name}", float(values[0]), unit, direction, VERSION, values[1:], "documents", saw=saw
            )

        found = [stated(_name(run), losses[:, at], "bit/byte") for at, run in enumerate(RUNS)]
        if np.quantile(losses[1:, -1], 0.025) <= 0:
            reason = "no units at all is not resolved worse than all of them"
            names = [f"faithfulness/{name}" for name in ("units_90", "sufficiency", "necessity")]
            return [*found, *not_applicable(names, VERSION, reason)]
        left = losses / losses[:, -1:]
        share = "share of what units do"
        of = {way: [at for at, (name, _) in enumerate(RUNS) if name == way] for way in ("random", "best", "worst")}
        return [
            *found,
            *(stated(f"{_name(run)}_lost", left[:, at], share) for at, run in enumerate(RUNS[:-1])),
            stated("sufficiency", (left[:, of["random"]] - left[:, of["best"]]).mean(1), share, "higher"),
            stated("necessity", (left[:, of["worst"]] - left[:, of["random"]]).mean(1), share, "higher"),
            stated("units_90", np.array([needed(each) for each in left]), "units/token/site", "lower"),
        ]


def _name(run: Run) -> str:
    way, size = run
    if way == "none":
        return "none"
    return f"{way}_{round(size)}" if way == "count" else f"{way}_{round(100 * size)}"


def needed(left: np.ndarray) -> float:
    """Units of a token and site from which on at most a tenth is lost, of the shares `left` `[runs]`; log-linear
    between counts, at most the largest. One where one is enough: no fewer were read."""
    counts = np.array(COUNTS, float)
    lost = np.array([left[at] for at, (way, _) in enumerate(RUNS) if way == "count"])
    over = np.flatnonzero(lost > 1 - ENOUGH)
    if not len(over):
        return 1.0
    last = int(over[-1])
    if last + 1 == len(counts):
        return float(counts[-1])
    part = (lost[last] - (1 - ENOUGH)) / max(1e-12, lost[last] - lost[last + 1])
    return float(counts[last] * (counts[last + 1] / counts[last]) ** part)


def curves(evaluation: Evaluation, sequences: int, seed: int) -> Curves:
    system = evaluation.system
    nats = evaluation.document_sums(len(RUNS))
    n_bytes = evaluation.document_sums()
    generator = torch.Generator().manual_seed(seed)
    for batch in evaluation.batches(min(sequences, evaluation.sequences)):
        native = Native.of(system, batch)
        helps = subsets.helps(system, batch, native)
        with torch.no_grad():
            before = subsets.losses(system, batch, native, native.everything(system.device))
        most = {site: values.abs() for site, values in helps.items()}
        drawn = {site: torch.rand(len(keys), generator=generator).to(keys.device) for site, keys in native.keys.items()}
        orders = {
            "random": drawn,
            "best": most,
            "count": most,
            "worst": {site: -values for site, values in most.items()},
            "none": drawn,
        }
        found: list[Tensor] = []
        for way, size in RUNS:
            if way == "against":
                found.append(subsets.chosen_against(system, batch, native, size, helps, generator))
                continue
            with torch.no_grad():
                masks = subsets.kept(orders[way], native, _wanted(way, size), generator)
                found.append(subsets.losses(system, batch, native, masks))
        document = batch.document[:, 1:].reshape(-1)
        evaluation.by_document(document, torch.stack(found, 1) - before[:, None], nats)
        evaluation.by_document(document, batch.n_bytes[:, 1:].reshape(-1), n_bytes)
    return Curves(nats.numpy(), n_bytes.numpy(), evaluation.resamples)


def _wanted(way: Way, size: float) -> Callable[[Tensor], Tensor]:
    """Of a token with so many entries, how many it keeps."""
    if way == "count":
        return lambda lengths: torch.full_like(lengths, int(size)).clamp_max(lengths)
    return lambda lengths: size * lengths
