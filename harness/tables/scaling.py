"""Dense-equivalent compute: the training FLOPs that a dense model needs for a system's loss.

Through the lower envelope of the rows of the scaling curve goes L = a · C^(−b), least squares in logarithms of bits per
byte L against training FLOPs C. A row is on the envelope if none that takes as little or less has a loss as low: of
dense shapes the best at each budget count (a curve of one shape flatters what is compared with it). A system's
dense-equivalent compute is the C at which the line has its loss; above its own FLOPs, the system is the more efficient
one. There is no irreducible loss in the form: three points cannot tell one. Outside the curve's range of losses the
figure is an extrapolation, and the row says so.

The same line says what a model is worth on a part of its units: `<figure>_compute` is the share of the compute of a
dense model as good as the native one that is left at the loss that the faithfulness metric finds there ("compute
recovered"). A dictionary that does nothing leaves all of it: read it beside `<figure>_lost`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from harness.tables.build import SeedResult
from harness.tables.measurement import Measurement

VERSION = 2
LOSS = "loss/spliced_bits_per_byte"  # of a dictionary row what the model does through it; of others their loss
FLOPS = "cost/training_flops"
NATIVE = "loss/bits_per_byte"
# Losses above the native model's, of which it is said what compute they leave.
PARTS = ("faithfulness/random_50", "faithfulness/best_25", "faithfulness/against_75")
NAME, RATIO = "scaling/dense_equivalent_flops", "scaling/dense_equivalent_ratio"
_WHY_NOT = "the dense curve has no three rows whose loss falls with compute"


def on_envelope(flops: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """`[points]` bool: no point that takes as little or less has a loss as low or lower."""
    no_dearer, no_worse = flops[:, None] >= flops, losses[:, None] >= losses  # [point, other]
    better = no_dearer & no_worse & ~np.eye(len(flops), dtype=bool)
    return np.logical_not(better.any(axis=1))


def fit(flops: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(log a, b) of L = a · C^(−b). flops `[points]`, losses `[points, ...]`; both results `[...]`."""
    x, y = np.log(flops), np.log(losses)
    centred = x - x.mean()
    slope = np.tensordot(centred, y - y.mean(0), axes=1) / (centred**2).sum()
    return y.mean(0) - slope * x.mean(), -slope


def needed(losses: np.ndarray, log_a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Training FLOPs at which the line has these losses."""
    return np.exp((log_a - np.log(losses)) / b)


def with_dense_equivalent(results: Sequence[SeedResult], curve: Sequence[str]) -> list[SeedResult]:
    """The results with two figures more: dense-equivalent FLOPs, and their ratio to the FLOPs spent.

    One fit a seed. Intervals: the fit is made again on every resample of the evaluation documents, which are the same
    for the curve and for the system. Without a curve, or the metrics loss and cost, the results as they are.
    """
    added = [_with(result, [r for r in results if r.seed == result.seed and r.system in curve]) for result in results]
    # A mean over the seeds whose curve falls would be a mean over the lucky ones: one that does not takes all with it.
    flat = sorted({result.seed for result in added if result.not_applicable.get(NAME) == _WHY_NOT})
    if not flat or len(flat) == len({result.seed for result in results}):
        return added
    why = f"{_WHY_NOT} with seed {', '.join(map(str, flat))}"
    return [_without(result, why) for result in added]


def _without(result: SeedResult, why: str) -> SeedResult:
    """The result with a reason in place of the two figures, where it has them or a reason already."""
    kept = [measured for measured in result.measurements if measured.name not in (NAME, RATIO)]
    if len(kept) == len(result.measurements) and NAME not in result.not_applicable:
        return result
    return replace(result, measurements=kept, not_applicable={**result.not_applicable, NAME: why, RATIO: why})


def _with(result: SeedResult, points: list[SeedResult]) -> SeedResult:
    found = [(_find(point, FLOPS), _find(point, LOSS)) for point in (*points, result)]
    pairs = [(flops, loss) for flops, loss in found if flops is not None and loss is not None]
    if len(points) < 3 or len(pairs) < len(found) or pairs[-1][0].value == 0:
        return result
    *on_curve, (own_flops, own_loss) = pairs
    flops = np.array([point.value for point, _ in on_curve])
    losses = np.array([point.value for _, point in on_curve])
    kept = on_envelope(flops, losses)
    flops, losses = flops[kept], losses[kept]
    if len(flops) < 3:
        return replace(result, not_applicable={**result.not_applicable, NAME: _WHY_NOT, RATIO: _WHY_NOT})
    log_a, b = fit(flops, losses)
    if not b > 0:
        reasons = {**result.not_applicable, NAME: _WHY_NOT, RATIO: _WHY_NOT}
        return replace(result, not_applicable=reasons)
    value = float(needed(np.array(own_loss.value), log_a, b))
    replicates = None
    resampled = [loss.replicates for (_, loss), on in zip(pairs, [*kept, True], strict=True) if on]
    if all(each is not None for each in resampled):
        arrays = np.stack([np.asarray(each) for each in resampled])  # [points + 1, resamples]
        log_as, bs = fit(flops, arrays[:-1])
        if (bs > 0).all():
            replicates = needed(arrays[-1], log_as, bs)
    kind = "documents" if replicates is not None else None
    ratios = None if replicates is None else replicates / own_flops.value
    added = [
        Measurement(NAME, value, "FLOP", "higher", VERSION, replicates, kind),
        Measurement(RATIO, value / own_flops.value, "", "higher", VERSION, ratios, kind),
    ]
    added += _left(result, log_a, b)
    notes = list(result.notes)
    if not losses.min() <= own_loss.value <= losses.max():
        low, high = sorted((losses.min(), losses.max()))
        notes.append(
            f"dense-equivalent compute extrapolated: {own_loss.value:.3f} bits per byte, curve {low:.3f} to {high:.3f}"
        )
    return replace(result, measurements=[*result.measurements, *added], notes=notes)


def _left(result: SeedResult, log_a: np.ndarray, b: np.ndarray) -> list[Measurement]:
    """Without intervals: the losses are of fewer sequences than the line's."""
    native = _find(result, NATIVE)
    found = []
    for name in PARTS:
        rise = _find(result, name)
        if native is not None and rise is not None and native.value + rise.value > 0:
            share = needed(np.array(native.value + rise.value), log_a, b) / needed(np.array(native.value), log_a, b)
            found.append(Measurement(f"{name}_compute", float(share), "share of FLOP", "higher", VERSION))
    return found


def _find(result: SeedResult, name: str) -> Measurement | None:
    return next((m for m in result.measurements if m.name == name), None)
