"""Do two units mean more together than apart? Estimators on four sets of logits, from edits in the same context.

z11: both units on, z10: only A, z01: only B, z00: neither; `[contexts, outcomes]`, everything else equal. Definitions
ours. Nothing is averaged before a logarithm, so units that merely fire together (a shared topic, one cause) give zero.
Public on plain arrays: feed them worlds of your own (harness/bench/joint_controls.py does).

All is computed in float64: logarithms of float32 put 6e-8 bits on the excess of logits that add up, and an untrained
model's is 2e-7.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

# Below this many bits an excess is rounding of float32 logits (some 1e-6 of them, which counts squared), and no pair is
# called above a floor that is smaller still.
RESOLUTION = 1e-9
_OUTCOMES = 256  # likeliest outcomes that the weights of `conjunction` are fitted on; the others count as one
_FIRST_BARRIER, _BARRIER_SHRINKS, _NEWTON_STEPS = 0.1, 0.3, 13


@dataclass(frozen=True)
class Figures:
    """Of each context `[contexts]`: excess, effect and conjunction in bits; novel 1 or 0."""

    excess: Tensor
    effect: Tensor
    conjunction: Tensor
    novel: Tensor


def figures(z11: Tensor, z10: Tensor, z01: Tensor, z00: Tensor) -> Figures:
    """All figures of every context; logits `[contexts, outcomes]`, floating. Raises ValueError on unequal shapes."""
    return Figures(
        excess(z11, z10, z01, z00),
        effect(z11, z00),
        conjunction(z11, z10, z01, z00)[0],
        novel_top(z11, z10, z01, z00).to(z11.dtype),
    )


def excess(z11: Tensor, z10: Tensor, z01: Tensor, z00: Tensor) -> Tensor:
    """KL(softmax z11 ‖ softmax(z10 + z01 − z00)) in bits, `[contexts]` float64.

    0 where the two units' effects on the logits add up. A code that is read out linearly (cat = A − B) has 0 too: see
    `conjunction`.
    """
    _check(z11, z10, z01, z00)
    return _kl_bits(z11, z10.double() + z01 - z00)


def effect(z11: Tensor, z00: Tensor) -> Tensor:
    """KL(p11 ‖ p00) in bits, `[contexts]` float64: how much the two say at all."""
    _check(z11, z00)
    return _kl_bits(z11, z00)


def conjunction(z11: Tensor, z10: Tensor, z01: Tensor, z00: Tensor) -> tuple[Tensor, Tensor]:
    """min over λ, γ in [0, 1] of KL(p11 ‖ (1−γ)(λ p10 + (1−λ) p01) + γ p00), and the weights of p10, p01, p00.

    In bits `[contexts]`; weights `[contexts, 3]`, which sum to 1; float64. 0 where what both say is a mixture of what
    each says. Not zero where two units agree on one outcome and sharpen it: so it stands beside the excess and is never
    merged.

    The problem is convex in the weights: −Σ p11 log(w·P) + Σ w − μ Σ log w is minimised by Newton's method while the
    barrier μ shrinks (the optimum of the first two terms has Σ w = 1). With more than 256 outcomes the weights are
    fitted on the likeliest of p11, the others as one; the divergence is taken over all.
    """
    _check(z11, z10, z01, z00)
    p, *parts = (z.double().softmax(-1) for z in (z11, z10, z01, z00))  # [contexts, outcomes]
    fitted_p, fitted_parts = _likeliest(p, parts)
    weights = _mixture_weights(fitted_p, fitted_parts)
    tiny = torch.finfo(p.dtype).tiny
    # Where the mixture is of one part alone, Newton's method ends a hair inside; that part itself is no worse.
    vertices = torch.eye(3, dtype=weights.dtype, device=p.device).expand(len(p), 3, 3)
    candidates = torch.cat([weights[:, None], vertices], dim=1)  # [contexts, 4, 3]
    scores = (fitted_p[:, None] * (candidates @ fitted_parts).clamp_min(torch.finfo(weights.dtype).tiny).log()).sum(-1)
    chosen = candidates[torch.arange(len(p), device=p.device), scores.argmax(1)].to(p.dtype)
    mixture = sum(chosen[:, i, None] * part for i, part in enumerate(parts))
    # p log(p / mixture) with one logarithm: ratios near 1 keep their digits.
    divergence = torch.special.xlogy(p, p.clamp_min(tiny) / torch.as_tensor(mixture).clamp_min(tiny)).sum(-1)
    return divergence.clamp_min(0) / math.log(2), chosen


def novel_top(z11: Tensor, z10: Tensor, z01: Tensor, z00: Tensor) -> Tensor:
    """`[contexts]` boolean: the likeliest outcome with both is not the likeliest with A alone, B alone or neither."""
    _check(z11, z10, z01, z00)
    top = z11.argmax(-1)
    return (top != z10.argmax(-1)) & (top != z01.argmax(-1)) & (top != z00.argmax(-1))


def above_floor(excesses: np.ndarray, floors: np.ndarray) -> np.ndarray:
    """One-sided p-values `[pairs]`: is a pair's excess that of random write directions in the same contexts?

    excesses `[pairs]`: mean excess of each pair in bits; floors `[pairs, draws]`: the same with what both units write
    turned at random (harness/metrics/joint/floor.py), once a draw. A pair that is nothing special is one more draw, so
    log excess − mean log floor is ranked among what each draw has over the others of its pair, all pairs together: no
    shape is assumed, and pairs may differ in size. (The units' mean is over one draw more, which errs on the safe side.
    A t-test of the same differences flagged 10% at 5% in one planted world: they are skewed.) The smallest p-value is
    1 / (1 + pairs · draws). Raises ValueError with fewer than 3 draws: differences of two have no skew.
    """
    pairs, draws = floors.shape
    if draws < 3 or excesses.shape != (pairs,):
        raise ValueError(f"excesses {excesses.shape} and floors {floors.shape}: [pairs] and [pairs, at least 3 draws]")
    logs = np.log(np.maximum(floors, 0) + RESOLUTION)
    mean = logs.mean(1, keepdims=True)
    null = np.sort(((logs - mean) * draws / (draws - 1)).ravel())  # log F_j − mean of the others
    distance = np.log(np.maximum(excesses, 0) + RESOLUTION) - mean[:, 0]
    # Less than 5% more is a tie: where nothing downstream bends, floors are zero and agree to the last digit.
    below = np.searchsorted(null, distance - 0.05, side="left")
    return (1 + len(null) - below) / (1 + len(null))


def _kl_bits(z: Tensor, other: Tensor) -> Tensor:
    log_p, log_q = z.double().log_softmax(-1), other.double().log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1).clamp_min(0) / math.log(2)


def _likeliest(p: Tensor, parts: list[Tensor]) -> tuple[Tensor, Tensor]:
    """p `[n, outcomes]` and three parts like it on the likeliest outcomes of p and, last, all others as one: `[n, m]`
    and `[n, 3, m]`, float64."""
    if p.shape[1] <= _OUTCOMES + 1:
        return p.double(), torch.stack(parts, 1).double()
    kept, where = p.topk(_OUTCOMES, dim=1, sorted=False)
    kept, kept_parts = kept.double(), torch.stack([part.gather(1, where) for part in parts], 1).double()
    return (
        torch.cat([kept, (1 - kept.sum(1, keepdim=True)).clamp_min(0)], 1),
        torch.cat([kept_parts, (1 - kept_parts.sum(2, keepdim=True)).clamp_min(0)], 2),
    )


def _mixture_weights(p: Tensor, parts: Tensor) -> Tensor:
    """argmin over the simplex of −Σ p log(w·parts): `[n, 3]` from p `[n, m]` and parts `[n, 3, m]`, float64."""
    weights = torch.full((len(p), 3), 1 / 3, dtype=p.dtype, device=p.device)
    tiny = torch.finfo(p.dtype).tiny
    root = p.sqrt()
    first, second, third = parts.unbind(1)
    barrier = _FIRST_BARRIER
    for _ in range(_NEWTON_STEPS):
        # With t = parts · √p / mixture, the gradient of Σ p log is t · √p and the curvature t · t: one product.
        mixture = torch.addcmul(torch.addcmul(first * weights[:, :1], second, weights[:, 1:2]), third, weights[:, 2:])
        scaled = torch.cat([parts * (root / mixture.clamp_min(tiny))[:, None], root[:, None]], 1)  # [n, 4, m]
        products = scaled[:, :3] @ scaled.transpose(1, 2)  # [n, 3, 4]
        gradient = 1 - products[:, :, 3] - barrier / weights
        hessian = products[:, :, :3] + torch.diag_embed(barrier / weights.square())
        step = -torch.linalg.solve(hessian, gradient)
        # At most nine tenths of the way to the boundary, so that weights stay inside.
        reach = torch.where(step < 0, -0.9 * weights / step, torch.full_like(step, math.inf)).amin(1).clamp_max(1)
        weights = weights + reach[:, None] * step
        barrier *= _BARRIER_SHRINKS
    return weights / weights.sum(1, keepdim=True)


def _check(*logits: Tensor) -> None:
    shapes = {tuple(z.shape) for z in logits}
    if len(shapes) != 1 or logits[0].ndim != 2:
        raise ValueError(f"logits must be of one shape [contexts, outcomes], these are {sorted(shapes)}")
