"""Does a dictionary find features that are known? Scores against ground truth (the data: `saes.planted.Planted`)."""

from __future__ import annotations

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


class Benchmark:
    """Scores one dictionary, batch by batch. features `[n_features, d]`."""

    def __init__(self, dictionary: Dictionary, features: Tensor) -> None:
        self.dictionary = dictionary
        cosine = F.normalize(dictionary.W_dec.detach(), dim=1) @ F.normalize(features.detach(), dim=1).T
        self.cosine = cosine.abs()  # [n_latents, n_features]
        self.nearest = self.cosine.argmax(1)
        # Tokens on which a latent fires, on which its feature is there, and on which both are so.
        self.fires, self.there, self.both = torch.zeros(3, dictionary.n_units, dtype=torch.float64)
        self.sum = torch.zeros(features.shape[1], dtype=torch.float64)
        self.squares = self.left = 0.0
        self.tokens = 0

    @torch.no_grad()
    def add(self, x: Tensor, strengths: Tensor) -> None:
        """x `[tokens, d]`, and how strongly each feature is in each token `[tokens, n_features]`."""
        codes = self.dictionary.read(x, torch.zeros(x.shape[0], 2, dtype=torch.long))
        is_there = strengths > 0
        right = is_there[codes.token_of_entry(), self.nearest[codes.units]]
        n = self.dictionary.n_units
        self.fires += torch.bincount(codes.units, minlength=n)
        self.there += is_there.sum(0)[self.nearest]
        self.both += torch.bincount(codes.units[right], minlength=n)
        wide, output = x.double(), self.dictionary.write(codes, x) + self.dictionary.rest(x)
        self.left += float((wide - output).square().sum())
        self.squares += float(wide.square().sum())
        self.sum += wide.sum(0)
        self.tokens += x.shape[0]

    def scores(self) -> Benchmarked:
        """Of what was added."""
        from scipy.optimize import linear_sum_assignment

        latent, feature = linear_sum_assignment(-self.cosine.numpy())
        f1 = 2 * self.both / (self.fires + self.there).clamp_min(1)  # the harmonic mean of precision and recall
        variance = self.squares - float(self.sum.square().sum()) / self.tokens
        return Benchmarked(
            f1=float(f1.mean()),
            precision=float((self.both / self.fires.clamp_min(1)).mean()),
            recall=float((self.both / self.there.clamp_min(1)).mean()),
            mcc=float(self.cosine[latent, feature].mean()),
            uniqueness=self.nearest.unique().numel() / self.nearest.numel(),
            explained_variance=1.0 - self.left / variance,
            l0=float(self.fires.sum()) / self.tokens,
            dead_share=float((self.fires == 0).double().mean()),
        )
