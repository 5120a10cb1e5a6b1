"""What two units say together about the next token that neither says alone, by prediction on held-out documents.

Per pair, among contexts where at least one of the two fires and as many where neither does: log-odds of the outcomes
are an offset (all active units, domain and current token, additively: readout.py), plus a constant, splines of A and
splines of B, plus an A·B term. The gain is what the last one saves in bits over all those contexts of eval, per context
where both fire: a conjunction shows as much where only one fires, since an additive fit that is right where both do is
wrong there. Without the offset a shared topic is a gain; without contexts of neither the constant could not be told
from a conjunction, and without the constant the product corrects an offset that is off, with a shuffled B as well.

Observational: it is free of false positives only where the offset carries the true common causes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_KNOTS = 2  # of a spline, at thirds of the values of a unit that fires
_STEPS = 30
PENALTIES = (1.0, 10.0, 100.0, 1000.0)  # on the A·B term; which, is chosen on dev
_SPLINE_PENALTY = 3.0
_SURE = 1.64  # standard errors that an A·B term must save on dev to be used at all


@dataclass(frozen=True)
class PaddedContexts:
    """Contexts of pairs, padded: a, b `[pairs, n]` values, 0 where silent; y `[pairs, n]` int64; offset `[pairs, n,
    outcomes]` log-odds; weight `[pairs, n]`: 1, or 0 for padding; fold `[pairs, n]`: 0 or 1, by document."""

    a: Tensor
    b: Tensor
    y: Tensor
    offset: Tensor
    weight: Tensor
    fold: Tensor

    def features(self, knots: Tensor) -> tuple[Tensor, Tensor]:
        """Constant and splines of A and of B `[pairs, n, 1 + 2 (2 + _KNOTS)]`, and A·B `[pairs, n, 1]`. knots
        `[2, pairs, _KNOTS]`."""
        parts = [torch.ones_like(self.a)[..., None]]
        for value, at in zip((self.a, self.b), knots, strict=True):
            fires = (value != 0).to(value.dtype)
            hinges = (value[..., None] - at[:, None]).clamp_min(0) * fires[..., None]
            parts += [fires[..., None], value[..., None], hinges]
        return torch.cat(parts, -1), (self.a * self.b)[..., None]

    @property
    def both(self) -> Tensor:
        return (self.a != 0) & (self.b != 0) & (self.weight > 0)


@dataclass(frozen=True)
class Interaction:
    """gain `[pairs, n]`: bits saved in each context of eval (0 in padding); penalty `[pairs]`: chosen on dev,
    infinite where none saved enough for an A·B term to be used, and the gain is 0."""

    gain: Tensor
    penalty: Tensor


def interaction(dev: PaddedContexts, test: PaddedContexts) -> Interaction:
    """Fits every pair on dev, its penalty chosen by crossing dev's folds, and reads eval."""
    knots = torch.stack([_knots(dev.a, dev.weight), _knots(dev.b, dev.weight)])
    saved, noise = torch.zeros(2, len(PENALTIES), len(dev.a), dtype=torch.float64)
    for fold in (0, 1):
        additive = _additive(dev, dev.weight * (dev.fold != fold), knots)
        for i, penalty in enumerate(PENALTIES):
            found = _gain(dev, dev.weight * (dev.fold != fold), dev, knots, additive, torch.tensor([penalty]))
            of_each = (found * dev.weight * (dev.fold == fold)).double()
            saved[i] += of_each.sum(1)
            noise[i] += of_each.square().sum(1)
    best = saved.argmax(0)
    penalty = torch.tensor(PENALTIES)[best]
    found = _gain(dev, dev.weight, test, knots, _additive(dev, dev.weight, knots), penalty)
    # The best of several, on few contexts, is often one that gained by luck.
    worth = (saved > _SURE * noise.sqrt()).gather(0, best[None])[0]
    gain = torch.where((test.weight > 0) & worth[:, None], found, torch.zeros_like(found))
    return Interaction(gain, torch.where(worth, penalty, torch.inf))


def _additive(dev: PaddedContexts, weight: Tensor, knots: Tensor) -> Tensor:
    splines, _ = dev.features(knots)
    ridge = torch.full((1, splines.shape[-1]), _SPLINE_PENALTY)
    return solve(splines, dev.offset, dev.y, weight, ridge)


def _gain(
    dev: PaddedContexts, weight: Tensor, test: PaddedContexts, knots: Tensor, additive: Tensor, penalty: Tensor
) -> Tensor:
    """Bits that an A·B term fitted on dev saves in each context of `test`. penalty `[pairs or 1]`"""
    x, there = torch.cat(dev.features(knots), -1), torch.cat(test.features(knots), -1)
    ridge = torch.cat([torch.full((len(penalty), x.shape[-1] - 1), _SPLINE_PENALTY), penalty[:, None]], 1)
    # Both are fitted again, from the additive fit on: what the splines can say is not the product's.
    w = solve(x, dev.offset, dev.y, weight, ridge, torch.cat([additive, torch.zeros_like(additive[:, :1])], 1))
    without = _log_p(test, test.offset + there[..., :-1] @ additive)
    return (_log_p(test, test.offset + there @ w) - without) / math.log(2)


def solve(x: Tensor, offset: Tensor, y: Tensor, weight: Tensor, ridge: Tensor, w: Tensor | None = None) -> Tensor:
    """Ridge multinomial regression of every pair at once: W `[pairs, features, outcomes]`.

    x `[pairs, n, features]`, offset `[pairs, n, outcomes]`, y and weight `[pairs, n]`, ridge `[pairs or 1, features]`.
    Böhning's bound (1992): the curvature never exceeds ½ XᵀX ⊗ (I − 1/outcomes), so each step of that preconditioner
    gains, with no step size to choose.
    """
    w = torch.zeros(len(x), x.shape[-1], offset.shape[-1]) if w is None else w
    weighted = x * weight[..., None]
    curvature = 0.5 * weighted.mT @ x + torch.diag_embed(ridge)
    factor = torch.linalg.cholesky(curvature)
    observed = torch.zeros_like(offset).scatter_(-1, y[..., None], 1.0)
    previous = w
    for step in range(_STEPS):
        # Nesterov's momentum: the bound is safe and therefore slow.
        ahead = w + step / (step + 3) * (w - previous)
        p = (offset + x @ ahead).softmax(-1)
        slope = weighted.mT @ (observed - p) - ridge[..., None] * ahead
        previous, w = w, ahead + torch.cholesky_solve(slope, factor)
    return w


def _log_p(contexts: PaddedContexts, z: Tensor) -> Tensor:
    return z.log_softmax(-1).gather(-1, contexts.y[..., None])[..., 0]


def _knots(values: Tensor, weight: Tensor) -> Tensor:
    """Quantiles of each pair's non-zero values. `[pairs, _KNOTS]`"""
    fires = (values != 0) & (weight > 0)
    of = torch.where(fires, values, torch.nan)
    at = torch.arange(1, _KNOTS + 1) / (_KNOTS + 1)
    return of.nanquantile(at, dim=1).T.nan_to_num(0.0)
