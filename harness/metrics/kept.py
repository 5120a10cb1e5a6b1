"""How many units a token needs: the loss when only its k strongest units write, in every layer at once.

A description such as strength-L0 counts what is written; this counts what the model needs of it. [U: ours]
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from harness.base.settings import Strict
from harness.metrics.metric import register
from harness.systems.evaluation import Evaluation
from harness.systems.system import Encoded, Site, System
from harness.tables.measurement import Measurement
from harness.tables.statistics import resampled_sums
from kernels.codes import Codes

VERSION = 1


class Options(Strict):
    """How near is near enough, and on how much text."""

    margin: float = Field(default=0.02, gt=0, description="Bits per byte that keeping only k units may cost.")
    sequences: int = Field(default=64, ge=1, description="Evaluation sequences that are read (at most).")


def measure(evaluation: Evaluation, options: Options) -> list[Measurement]:
    """Bits per byte, targets as in `loss`, at every power of two up to the most units that fire on a token of a site. A
    dictionary's error is dropped; what no unit owns is kept. Intervals resample documents.

    - bits_per_byte_k<k>, and bits_per_byte_all with all units;
    - l0: the k at which the loss is `margin` above the native model's, between two powers of two by interpolation in
      log k; n/a where not even all units come so near. What systems are matched on;
    - l0_of_units: the same above bits_per_byte_all: how few of its own units a token needs, however good these are.
    """
    system = evaluation.system
    levels = [2**power for power in range(1 + math.ceil(math.log2(max(1, _most(evaluation)))))]
    runs: dict[str, Callable[[], AbstractContextManager[None]]] = {"native": nullcontext}
    runs |= {f"k{k}": partial(_keeping, system, k) for k in levels}
    runs["all"] = partial(_keeping, system, None)
    nats = {name: evaluation.document_sums() for name in runs}
    n_bytes = evaluation.document_sums()
    for batch in evaluation.batches(min(options.sequences, evaluation.sequences)):
        document, targets = batch.document[:, 1:].reshape(-1), batch.input_ids[:, 1:].reshape(-1)
        for name, running in runs.items():
            with torch.no_grad(), running():
                logits = system.model(batch.input_ids, use_cache=False).logits[:, :-1]
            losses = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), targets, reduction="none")
            evaluation.by_document(document, losses, nats[name])
        evaluation.by_document(document, batch.n_bytes[:, 1:].reshape(-1), n_bytes)
    columns = torch.stack([*nats.values(), n_bytes], 1)
    columns = columns[columns[:, -1] > 0].numpy()  # documents that were read
    value = _bits(columns.sum(0, keepdims=True))[0]
    replicates = _bits(resampled_sums(columns, evaluation.resamples))  # [resamples, runs]
    names = list(runs)
    saw = f"{int((columns[:, -1] > 0).sum()):,} documents"
    found = [
        Measurement(
            f"kept/bits_per_byte_{name}", float(value[at]), "bit/byte", "lower", VERSION, replicates[:, at],
            "documents", saw=saw,
        )
        for at, name in enumerate(names) if name != "native"
    ]  # fmt: skip
    for name, reference in (("l0", "native"), ("l0_of_units", "all")):
        found.append(_enough(name, value, replicates, names.index(reference), levels, options.margin))
    return found


def _most(evaluation: Evaluation) -> int:
    """Units that fire on one token of one site, at most, on the tokens that have codes."""
    lengths = (evaluation.load_codes(site).codes.row_lengths() for site in evaluation.system.sites)
    return max(int(length.max()) for length in lengths if len(length))


def _keeping(system: System, k: int | None) -> AbstractContextManager[None]:
    """While the block runs, only the k strongest units of each token write at each site; None: all of them."""

    def strongest(site: Site, codes: Codes, x: Tensor) -> Codes:
        if k is None:
            return codes
        return codes.keep(Encoded(codes, system.decomposition[site].strengths(codes, x)).strongest(k))

    return system.tapped({site: partial(strongest, site) for site in system.sites}, error="drop", rest="keep")


def _bits(sums: np.ndarray) -> np.ndarray:
    """`[rows, runs + 1]`, nats of each run and bytes → bits per byte `[rows, runs]`."""
    return sums[:, :-1] / (math.log(2) * sums[:, -1:])


def _enough(
    name: str, value: np.ndarray, replicates: np.ndarray, reference: int, levels: list[int], margin: float
) -> Measurement:
    """Runs are: native, the levels ascending, all."""

    def at(bits: np.ndarray) -> float:
        return crossing(levels, bits[1:-1], bits[reference] + margin)

    figure = at(value)
    reason = None
    if math.isnan(figure):
        over = value[-2] - value[reference]
        reason = f"even {levels[-1]} units a token and layer lose {over:.3f} bits per byte, more than {margin}"
    drawn = np.array([at(row) for row in replicates])
    return Measurement(
        f"kept/{name}", figure, "units/token/layer", "lower", VERSION,
        None if reason else drawn, None if reason else "documents", reason=reason,
    )  # fmt: skip


def crossing(levels: list[int], losses: np.ndarray, bound: float) -> float:
    """The least k from which on the loss stays at or below `bound`, log-linear between levels; nan if it never does.

    From above, so that a loss that happens to dip at a small k is not taken for enough.
    """
    over = np.flatnonzero(losses > bound)
    if not len(over):
        return float(levels[0])
    last = int(over[-1])
    if last == len(levels) - 1:
        return math.nan
    low, high = losses[last], losses[last + 1]
    share = (low - bound) / (low - high)
    return float(levels[last] * (levels[last + 1] / levels[last]) ** share)


register("kept", measure, Options, VERSION)
