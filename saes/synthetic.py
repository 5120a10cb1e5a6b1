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
