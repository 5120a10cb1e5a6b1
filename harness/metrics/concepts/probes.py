"""Logistic probes: what can be read at a site at all, and what few units say of it.

A unit's score stands beside the full linear probe on its site: what no probe finds there cannot be held against the
units. k-sparse probing on the units of largest
mean difference follows Gurnee et al. (arXiv 2305.01610); of one benchmark's parts it is the one that survived an audit
(arXiv 2605.18229).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csc_array
from torch import Tensor

from harness.metrics.concepts.activity import Activity, Integers
from harness.metrics.concepts.tokens import Held

Floats = NDArray[np.float64]

DECAY = 1e-3  # of the probes' weights, per token, on standardised inputs
STEPS = 60  # of L-BFGS
NEWTON = 12
EACH = 2048  # tokens with a concept, and as many without it, that a k-sparse probe learns from
LEARNT = 1 << 14  # tokens, evenly over dev, that a full probe learns from


@dataclass(frozen=True)
class ProbeScores:
    """Of every concept. chosen: F1 on dev at the threshold that makes it largest; said: the tokens of eval that reach
    it; auroc: on eval."""

    chosen: Floats
    said: list[Integers]
    auroc: Floats


def better(each: Sequence[ProbeScores]) -> ProbeScores:
    """Of each concept the probe that did best on dev."""
    chosen = np.stack([one.chosen for one in each])
    best = chosen.argmax(0)
    concepts = np.arange(chosen.shape[1])
    return ProbeScores(
        chosen.max(0),
        [each[probe].said[concept] for concept, probe in enumerate(best)],
        np.stack([one.auroc for one in each])[best, concepts],
    )


@dataclass(frozen=True)
class Probe:
    """One logistic regression a concept. mean, scale `[d]`; weights `[d + 1, concepts]`, the last row the bias."""

    mean: Tensor
    scale: Tensor
    weights: Tensor

    def logits(self, x: Tensor) -> Tensor:
        """`[tokens, concepts]` of x `[tokens, d]`."""
        return (x - self.mean) / self.scale @ self.weights[:-1] + self.weights[-1]


def fit(x: Tensor, held: Held) -> Probe:
    """Trained to convergence on x `[tokens, d]` (all concepts share the products with x; L-BFGS on their sum, which
    separates)."""
    mean, scale = x.mean(0), x.std(0).clamp_min(1e-6)
    every = max(1, len(x) // LEARNT)
    inputs, truth = ((x - mean) / scale)[::every], torch.from_numpy(held.matrix().toarray()[::every])
    weights = torch.zeros(inputs.shape[1] + 1, truth.shape[1], requires_grad=True)
    with torch.no_grad():
        share = truth.mean(0).clamp(1e-6, 1 - 1e-6)
        weights[-1] = torch.log(share / (1 - share))
    # Sums over concepts and a step size of one leave each its own curvature; the history is shared, which costs steps.
    optimizer = torch.optim.LBFGS([weights], max_iter=STEPS, history_size=20, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = inputs @ weights[:-1] + weights[-1]
        total = torch.nn.functional.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean(0).sum()
        total = total + DECAY / 2 * weights[:-1].square().sum()
        total.backward()
        return total

    with torch.enable_grad():
        optimizer.step(loss)  # pyright: ignore[reportArgumentType]
    return Probe(mean, scale, weights.detach())


def linear_probe(x_dev: Tensor, dev: Held, x: Tensor, held: Held) -> ProbeScores:
    """One logistic regression a concept on all of x `[tokens, d]`."""
    probe = fit(x_dev, dev)
    return scored(probe.logits(x_dev).numpy(), dev, probe.logits(x).numpy(), held)


def scored(on_dev: NDArray[np.floating], dev: Held, on_eval: NDArray[np.floating], held: Held) -> ProbeScores:
    """Threshold by dev, scores on eval. Both `[tokens, concepts]`"""
    chosen, area, said = np.zeros(dev.n_concepts), np.zeros(dev.n_concepts), []
    truth_dev, truth = dev.matrix().toarray() > 0, held.matrix().toarray() > 0
    for concept in range(dev.n_concepts):
        chosen[concept], threshold = best_threshold(on_dev[:, concept], truth_dev[:, concept])
        said.append(np.flatnonzero(on_eval[:, concept] >= threshold))
        area[concept] = auroc(on_eval[:, concept], truth[:, concept])
    return ProbeScores(chosen, said, area)


def best_threshold(scores: NDArray[np.floating], truth: NDArray[np.bool_]) -> tuple[float, float]:
    """The largest F1 over thresholds, and the threshold."""
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    right = np.cumsum(truth[order])
    last = np.append(ordered[1:] != ordered[:-1], True)  # equal scores pass together
    f1 = np.where(last, 2 * right / (np.arange(1, len(right) + 1) + truth.sum()), 0)
    best = int(f1.argmax())
    return float(f1[best]), float(ordered[best])


def auroc(scores: NDArray[np.floating], truth: NDArray[np.bool_]) -> float:
    """P(a token with the concept scores higher than one without), ties half (Mann and Whitney)."""
    with_, without = scores[truth], np.sort(scores[~truth])
    if not len(with_) or not len(without):
        return float("nan")
    below, not_above = (np.searchsorted(without, with_, side) for side in ("left", "right"))
    return float((below.mean() + not_above.mean()) / 2 / len(without))


def sparse_probes(
    dev: Activity, dev_held: Held, evaluation: Activity, held: Held, units: Integers, sizes: tuple[int, ...], seed: int
) -> dict[int, Floats]:
    """AUROC on eval `[concepts]` of logistic probes on the k units, among `units`, whose mean differs most on dev
    between tokens with a concept and without it, in standard deviations; by k."""
    x_dev, x = _signed(dev, units), _signed(evaluation, units)
    largest = min(max(sizes), len(units))
    picked = _most_different(x_dev, dev_held, largest)  # [concepts, largest]
    generator = np.random.default_rng([seed, len(units)])
    found = {k: np.full(dev_held.n_concepts, np.nan) for k in sizes}
    for concept, (on, true) in enumerate(zip(dev_held.tokens_of_each(), held.tokens_of_each(), strict=True)):
        columns = picked[concept]
        tokens, y = _balanced(on, dev.n_tokens, generator)
        inside = torch.from_numpy(x_dev[:, columns].toarray()[tokens]).double()
        outside = torch.from_numpy(x[:, columns].toarray()).double()
        scale = inside.std(0).clamp_min(1e-6)
        is_true = np.zeros(evaluation.n_tokens, bool)
        is_true[true] = True
        for k in sizes:
            weights = newton(inside[:, :k] / scale[:k], y)
            scores = (outside[:, :k] / scale[:k]) @ weights[:-1]
            found[k][concept] = auroc(scores.numpy(), is_true)
    return found


def newton(x: Tensor, y: Tensor) -> Tensor:
    """Logistic regression of y `[n]` on x `[n, k]` and a constant, by Newton's method. `[k + 1]` float64"""
    inputs = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)
    weights = torch.zeros(inputs.shape[1], dtype=x.dtype)
    decay = DECAY * torch.eye(inputs.shape[1], dtype=x.dtype)
    for _ in range(NEWTON):
        p = torch.sigmoid(inputs @ weights)
        gradient = inputs.T @ (p - y) / len(y) + decay @ weights
        curvature = (inputs * (p * (1 - p))[:, None]).T @ inputs / len(y) + decay
        weights = weights - torch.linalg.solve(curvature, gradient)
    return weights


def _signed(activity: Activity, units: Integers) -> csc_array:
    """Coefficients `[tokens, units]`, negative where the negative detector is active."""
    only = activity.restricted(units)
    detector = np.repeat(np.arange(len(only.indptr) - 1), np.diff(only.indptr))
    values = np.where(detector % 2, -only.values, only.values)
    return csc_array((values, (only.tokens, detector // 2)), shape=(activity.n_tokens, len(units)))


def _most_different(x: csc_array, held: Held, k: int) -> Integers:
    """The k units of each concept with the largest |mean with − mean without| / standard deviation. `[concepts, k]`"""
    n, positives = held.n_tokens, held.positives().astype(np.float64)
    total = np.asarray(x.sum(0), dtype=np.float64).reshape(-1, 1)
    square = np.asarray(x.multiply(x).sum(0), dtype=np.float64).reshape(-1, 1)
    inside = np.asarray((x.T @ held.matrix()).todense(), dtype=np.float64)  # [units, concepts]
    spread = np.sqrt(np.maximum(square / n - (total / n) ** 2, 1e-12))
    apart = np.abs(inside / positives - (total - inside) / np.maximum(n - positives, 1)) / spread
    return np.argsort(-apart, axis=0, kind="stable")[:k].T


def _balanced(on: NDArray[np.integer], n_tokens: int, generator: np.random.Generator) -> tuple[Integers, Tensor]:
    off = np.setdiff1d(np.arange(n_tokens), on)
    size = min(EACH, len(on), len(off))
    tokens = np.concatenate([generator.choice(on, size, replace=False), generator.choice(off, size, replace=False)])
    y = torch.cat([torch.ones(size), torch.zeros(size)]).double()
    return tokens, y
