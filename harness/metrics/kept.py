"""How many units a token needs: the loss when only its k strongest units write, in every layer at once.

A description such as strength-L0 counts what is written; this counts what the model needs of it. [U: ours]
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import cast

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
from models.feed_forward import FixedWrites
from models.monet import Monet

VERSION = 2
ROTATED = 1024  # units of a layer, up to which a random rotation of them is read too


class Options(Strict):
    """How near is near enough, and on how much text."""

    margin: float = Field(default=0.02, gt=0, description="Bits per byte that keeping only k units may cost.")
    sequences: int = Field(default=64, ge=1, description="Evaluation sequences that are read (at most).")


def measure(evaluation: Evaluation, options: Options) -> list[Measurement]:
    """Bits per byte, targets as in `loss`, at every power of two up to the most units that fire on a token of a site. A
    dictionary's error is dropped; what no unit owns is kept. Intervals resample documents.

    - bits_per_byte_k<k>, and bits_per_byte_all with all units;
    - l0: the k at which the loss is `margin` above the native model's, between two powers of two by interpolation in
      log k, and the neurons that belong to no unit (a side MLP's), which are always kept and have to be read as well;
      n/a where not even all units come so near. What systems are matched on;
    - l0_of_units: the same above bits_per_byte_all: how few of its own units a token needs, however good these are;
    - kept_controls/rotated_…: the same for the neurons of a layer (at most ROTATED) turned at random, which say what
      the neurons say, in no basis of their own; kept_controls/components_…: for MONET's 2n parts in place of its n²
      experts, an expert being kept where both its parts are.
    """
    system = evaluation.system
    levels = [2**power for power in range(1 + math.ceil(math.log2(max(1, _most(evaluation)))))]
    runs: dict[str, Callable[[], AbstractContextManager[None]]] = {"native": nullcontext}
    runs |= {f"k{k}": partial(_keeping, system, k) for k in levels}
    runs["all"] = partial(_keeping, system, None)
    others = _controls(system)
    for name, keep in others.items():
        runs |= {f"{name}_k{k}": partial(_tapped, system, keep, k) for k in levels}
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
            _named(name), float(value[at]), "bit/byte", "lower", VERSION, replicates[:, at], "documents", saw=saw,
        )
        for at, name in enumerate(names) if name != "native"
    ]  # fmt: skip
    rest = sum(system.rest_neurons(site) for site in system.sites) / len(system.sites)

    def enough(name: str, first: str, reference: str) -> Measurement:
        at = slice(names.index(first), names.index(first) + len(levels))
        bound, bounds = value[names.index(reference)], replicates[:, names.index(reference)]
        return _enough(name, value[at], replicates[:, at], bound, bounds, levels, options.margin, rest)

    found += [enough("kept/l0", "k1", "native"), enough("kept/l0_of_units", "k1", "all")]
    found += [enough(f"kept_controls/{name}_l0", f"{name}_k1", "native") for name in others]
    return found


def _named(run: str) -> str:
    control, _, k = run.rpartition("_")
    return f"kept_controls/{control}_bits_per_byte_{k}" if control else f"kept/bits_per_byte_{run}"


def _controls(system: System) -> dict[str, Callable[[Site, int, Codes, Tensor], Codes]]:
    """Name → the k strongest of something else than units, as codes of the units."""
    layers = [system.decomposition[site] for site in system.sites]
    if not system.native:
        return {}
    if all(isinstance(layer, Monet) for layer in layers):
        return {"components": partial(_components, system)}
    if all(isinstance(layer, FixedWrites) and layer.n_units <= ROTATED for layer in layers):
        return {"rotated": partial(_rotated, system)}
    return {}


def _components(system: System, site: Site, k: int, codes: Codes, x: Tensor) -> Codes:
    """Experts (i, j) of which both parts are among the token's k strongest, a part being as strong as its experts."""
    layer = cast(Monet, system.decomposition[site])
    token, strengths = codes.token_of_entry(), layer.strengths(codes, x)
    parts = torch.stack([codes.units // layer.n, layer.n + codes.units % layer.n])  # [2, entries]
    of_part = strengths.new_zeros(codes.n_tokens, 2 * layer.n)
    for part in parts:
        of_part.index_put_((token, part), strengths, accumulate=True)
    top = torch.zeros_like(of_part, dtype=torch.bool)
    top.scatter_(1, of_part.topk(min(k, 2 * layer.n), dim=1).indices, True)
    return codes.keep(top[token, parts[0]] & top[token, parts[1]])


def _rotated(system: System, site: Site, k: int, codes: Codes, _x: Tensor) -> Codes:
    """The k strongest directions of a basis that is turned at random, the same for every token of a site."""
    layer = cast(FixedWrites, system.decomposition[site])
    generator = torch.Generator().manual_seed(site.layer)
    turn = torch.linalg.qr(torch.randn(layer.n_units, layer.n_units, generator=generator)).Q.to(codes.values)
    turned = codes.dense() @ turn.T  # [tokens, units]
    strengths = turned.abs() * (turn @ layer.write_vectors()).norm(dim=1)
    weak = torch.ones_like(turned, dtype=torch.bool)
    weak.scatter_(1, strengths.topk(min(k, layer.n_units), dim=1).indices, False)
    return Codes.from_dense(turned.masked_fill(weak, 0) @ turn, codes.rows)


def _tapped(system: System, keep: Callable[[Site, int, Codes, Tensor], Codes], k: int) -> AbstractContextManager[None]:
    return system.tapped({site: partial(keep, site, k) for site in system.sites}, error="drop", rest="keep")


def _most(evaluation: Evaluation) -> int:
    """Units that fire on one token of one site, at most, on the tokens that have codes."""
    lengths = (evaluation.load_codes(site).codes.row_lengths() for site in evaluation.system.sites)
    return max(int(length.max()) for length in lengths if len(length))


def _keeping(system: System, k: int | None) -> AbstractContextManager[None]:
    """While the block runs, only the k strongest units of each token write at each site; None: all of them."""

    def strongest(site: Site, _k: int, codes: Codes, x: Tensor) -> Codes:
        if k is None:
            return codes
        return codes.keep(Encoded(codes, system.decomposition[site].strengths(codes, x)).strongest(k))

    return _tapped(system, strongest, k or 0)


def _bits(sums: np.ndarray) -> np.ndarray:
    """`[rows, runs + 1]`, nats of each run and bytes → bits per byte `[rows, runs]`."""
    return sums[:, :-1] / (math.log(2) * sums[:, -1:])


def _enough(
    name: str,
    value: np.ndarray,
    replicates: np.ndarray,
    bound: float,
    bounds: np.ndarray,
    levels: list[int],
    margin: float,
    rest: float,
) -> Measurement:
    """value `[levels]`, replicates `[resamples, levels]`: losses at the levels, ascending; bound, bounds `[resamples]`:
    what they are held against."""
    figure = crossing(levels, value, bound + margin) + rest
    reason = None
    if math.isnan(figure):
        over = value[-1] - bound
        reason = f"even {levels[-1]} units a token and layer lose {over:.3f} bits per byte, more than {margin}"
    drawn = np.array([crossing(levels, row, at + margin) for row, at in zip(replicates, bounds, strict=True)]) + rest
    return Measurement(
        name, figure, "units/token/layer", "lower", VERSION,
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
