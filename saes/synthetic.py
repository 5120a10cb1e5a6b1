"""Does a dictionary find features that are known? Scores against ground truth (the data: `saes.planted.Planted`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from saes.dictionary import Dictionary


@dataclass(frozen=True)
class Recovery:
    """mean_max_cosine: over the pairs of the best one-to-one matching of features and latents (Hungarian method on the
    cosine of decoder row and feature, as arXiv 2505.20254 does), averaged over all features, with 0 for those that are
    left over. precision, recall: does the latent of a pair fire exactly where
    its feature does, averaged over pairs (0 where undefined). dead_share: latents that never fire on these tokens.
    """

    mean_max_cosine: float
    precision: float
    recall: float
    dead_share: float


@torch.no_grad()
def recovery(dictionary: Dictionary, features: Tensor, x: Tensor, firings: Tensor) -> Recovery:
    """features `[n_features, d]`, x `[tokens, d]` and whether each feature is in each token,
    firings `[tokens, n_features]` bool."""
    from scipy.optimize import linear_sum_assignment

    cosine = F.normalize(features, dim=1) @ F.normalize(dictionary.W_dec, dim=1).T  # [n_features, n_latents]
    feature, latent = (torch.as_tensor(index) for index in linear_sum_assignment(-cosine.numpy()))
    fired = torch.zeros(x.shape[0], dictionary.n_units, dtype=torch.bool)
    codes = dictionary.read(x, torch.zeros(x.shape[0], 2, dtype=torch.long))
    fired[codes.token_of_entry(), codes.units] = True
    true, guess = firings[:, feature], fired[:, latent]
    both = (true & guess).sum(0).double()
    return Recovery(
        mean_max_cosine=float(cosine[feature, latent].sum()) / features.shape[0],
        precision=float((both / guess.sum(0).clamp_min(1)).mean()),
        recall=float((both / true.sum(0).clamp_min(1)).mean()),
        dead_share=float((~fired.any(0)).double().mean()),
    )


@dataclass(frozen=True)
class Benchmarked:
    """Scores as SynthSAEBench defines them (arXiv 2602.14687), where a dictionary may have fewer latents than there are
    features.

    f1, precision, recall: each latent is a detector of the feature that its decoder row is nearest to (largest absolute
    cosine; several may share one); mean over latents, 0 where undefined, so a dead latent counts as 0. mcc: mean
    absolute cosine over the pairs of the best one-to-one matching. uniqueness: share of latents that are alone, or the
    one that counts, with their nearest feature. explained_variance: 1 − Σ‖x − x̂‖²/Σ‖x − x̄‖². l0: latents that fire on a
    token; dead_share: latents that fire on none.
    """

    f1: float
    precision: float
    recall: float
    mcc: float
    uniqueness: float
    explained_variance: float
    l0: float
    dead_share: float


@torch.no_grad()
def benchmark(dictionary: Dictionary, features: Tensor, batches: Iterable[tuple[Tensor, Tensor]]) -> Benchmarked:
    """features `[n_features, d]`; each batch is x `[tokens, d]` with how strongly each feature is in each token
    `[tokens, n_features]`."""
    from scipy.optimize import linear_sum_assignment

    cosine = (F.normalize(dictionary.W_dec, dim=1) @ F.normalize(features, dim=1).T).abs()  # [n_latents, n_features]
    nearest = cosine.argmax(1)
    n = dictionary.n_units
    both, fires, there = (torch.zeros(n, dtype=torch.float64) for _ in range(3))
    squares = left = tokens = 0.0
    total = torch.zeros(features.shape[1], dtype=torch.float64)
    for x, strengths in batches:
        codes = dictionary.read(x, torch.zeros(x.shape[0], 2, dtype=torch.long))
        is_there = strengths > 0
        right = is_there[codes.token_of_entry(), nearest[codes.units]]
        both += torch.bincount(codes.units[right], minlength=n)
        fires += torch.bincount(codes.units, minlength=n)
        there += is_there.sum(0)[nearest]
        output = dictionary.write(codes, x) + dictionary.rest(x)
        left += float((x - output).double().square().sum())
        squares, total, tokens = squares + float(x.double().square().sum()), total + x.double().sum(0), tokens + len(x)
    precision, recall = both / fires.clamp_min(1), both / there.clamp_min(1)
    f1 = 2 * both / (fires + there).clamp_min(1)  # the harmonic mean of the two
    latent, feature = linear_sum_assignment(-cosine.numpy())
    return Benchmarked(
        f1=float(f1.mean()),
        precision=float(precision.mean()),
        recall=float(recall.mean()),
        mcc=float(cosine[latent, feature].mean()),
        uniqueness=nearest.unique().numel() / n,
        explained_variance=1.0 - left / (squares - float(total.square().sum()) / tokens),
        l0=float(fires.sum()) / tokens,
        dead_share=float((fires == 0).double().mean()),
    )
