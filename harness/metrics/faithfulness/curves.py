"""Loss against the share of each token's units that is kept, in several orders."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from harness.metrics.faithfulness import subsets
from harness.metrics.faithfulness.subsets import Native, Way
from harness.systems.evaluation import Evaluation
from harness.tables.measurement import Measurement, not_applicable
from harness.tables.statistics import resampled_sums

VERSION = 1
SHARES = (0.9, 0.75, 0.5, 0.25, 0.1, 0.05)
AGAINST = (0.9, 0.75, 0.5)  # each takes `subsets.STEPS` passes forward and back
WAYS: tuple[Way, ...] = ("random", "best", "worst")
ENOUGH = 0.9


@dataclass(frozen=True)
class Curves:
    """Nats above the native model by document and run `[documents, runs]`, bytes of each document, and the units of a
    token at a site. runs: (way, share) of each column, ("none", 0) the last."""

    runs: tuple[tuple[str, float], ...]
    nats: np.ndarray
    n_bytes: np.ndarray
    active: float
    resamples: int

    def measurements(self) -> list[Measurement]:
        columns = np.concatenate([self.nats, self.n_bytes[:, None]], 1)
        columns = columns[self.n_bytes > 0]
        saw = f"{len(columns):,} documents"

        def bits(sums: np.ndarray) -> np.ndarray:
            return sums[:, :-1] / (np.log(2) * sums[:, -1:])

        value, replicates = bits(columns.sum(0, keepdims=True))[0], bits(resampled_sums(columns, self.resamples))
        found = [
            Measurement(
                f"faithfulness/{way}_{round(100 * share)}" if way != "none" else "faithfulness/none", float(value[at]),
                "bit/byte", "lower", VERSION, replicates[:, at], "documents", saw=saw,
            )
            for at, (way, share) in enumerate(self.runs)
        ]  # fmt: skip
        of = {way: [at for at, (name, _) in enumerate(self.runs) if name == way] for way in ("random", "best")}

        def area(losses: np.ndarray) -> np.ndarray:
            return (losses[..., of["random"]] - losses[..., of["best"]]).mean(-1)

        found.append(
            Measurement("faithfulness/order_area", float(area(value)), "bit/byte", "higher", VERSION, area(replicates),
                        "documents", saw=saw)
        )  # fmt: skip
        if np.quantile(replicates[:, -1], 0.025) <= 0:
            reason = "no units at all is not resolved worse than all of them"
            return [*found, *not_applicable(["faithfulness/units_90"], VERSION, reason)]
        needed = [self._needed(losses, of["best"]) for losses in (value, *replicates)]
        found.append(
            Measurement("faithfulness/units_90", needed[0], "units/token/site", "lower", VERSION, np.array(needed[1:]),
                        "documents", saw=saw)
        )  # fmt: skip
        return found

    def _needed(self, losses: np.ndarray, best: list[int]) -> float:
        """Units from which on the loss above native is at most a tenth of that with none, log-linear between shares;
        of shares below the least that was read, that one."""
        shares = np.array([1.0, *(self.runs[at][1] for at in best)])
        left = np.array([0.0, *losses[best]]) / losses[-1]
        over = np.flatnonzero(left > 1 - ENOUGH)
        if not len(over):
            return float(self.active * shares[-1])
        after = int(over[0])
        low, high = left[after - 1], left[after]
        part = (1 - ENOUGH - low) / (high - low)
        return float(self.active * shares[after - 1] * (shares[after] / shares[after - 1]) ** part)


def curves(evaluation: Evaluation, sequences: int, seed: int) -> Curves:
    system = evaluation.system
    runs = [
        *((way, share) for way in WAYS for share in SHARES),
        *(("against", share) for share in AGAINST),
        ("none", 0),
    ]
    nats = evaluation.document_sums(len(runs))
    n_bytes = evaluation.document_sums()
    generator = torch.Generator().manual_seed(seed)
    entries = places = 0
    for batch in evaluation.batches(min(sequences, evaluation.sequences)):
        native = Native.of(system, batch)
        everything = native.everything(system.device)
        entries += sum(len(keys) for keys in native.keys.values())
        places += sum(len(lengths) for lengths in native.lengths.values())
        helps = subsets.helps(system, batch, native)
        with torch.no_grad():
            before = subsets.losses(system, batch, native, everything)
        most = {site: values.abs() for site, values in helps.items()}
        least = {site: -values.abs() for site, values in helps.items()}
        drawn = {site: torch.rand(len(keys), generator=generator).to(keys.device) for site, keys in native.keys.items()}
        orders = {"random": drawn, "best": most, "worst": least, "none": drawn}
        found: list[Tensor] = []
        for way, share in runs:
            if way == "against":
                found.append(subsets.chosen_against(system, batch, native, share, helps, generator))
                continue
            with torch.no_grad():
                masks = subsets.kept(orders[way], native, share, generator)
                found.append(subsets.losses(system, batch, native, masks))
        document = batch.document[:, 1:].reshape(-1)
        evaluation.by_document(document, torch.stack(found, 1) - before[:, None], nats)
        evaluation.by_document(document, batch.n_bytes[:, 1:].reshape(-1), n_bytes)
    return Curves(tuple(runs), nats.numpy(), n_bytes.numpy(), entries / max(1, places), evaluation.resamples)
