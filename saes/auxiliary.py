"""Auxiliary losses that give latents which the selection passes over something to learn from: aux_k and aux_zipf.

They are one loss and differ in the latents it is given: the silent ones, or those used less than Zipf's law expects.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.sparse_dictionary import decode_slots, encode_topk


def auxiliary_loss(
    x: Tensor, pre: Tensor, residual: Tensor, among: Tensor, k_aux: int, W_enc: Tensor, b_enc: Tensor, W_dec: Tensor
) -> tuple[Tensor, int]:
    """‖e − top_kaux(z | among) W_dec‖² / ‖e − ē‖²: how badly the latents `among` explain what is left; and the number
    of (token, latent) pairs this decoded.

    x `[tokens, d_in]` encoder input and `pre` `[tokens, n]` its pre-activations (no gradient); residual e
    `[tokens, d_out]`, detached; among `[n]` bool. Each token takes k_aux latents, or all of `among` when they are
    fewer; with none the loss is 0. Sums over tokens and dimensions, ē the batch mean. Gradients reach W_enc, b_enc and
    W_dec at the chosen latents.

    With `silent` latents this is aux_k (Gao et al. 2024, arXiv 2406.04093, A.2); the paper leaves the normalisation
    open, dividing by the variance of e is ours. With `under_used` ones it is aux_zipf (arXiv 2411.02124 names it; the
    definition is ours). As in SAELens the chosen values are not rectified: a latent whose pre-activation is negative
    on every token could not come back otherwise.
    """
    k_aux = min(k_aux, int(among.sum()))
    if k_aux == 0:
        return x.new_zeros(()), 0
    units, values = encode_topk(x, W_enc, b_enc, k_aux, pre=pre, among=among)
    left = residual - decode_slots(units, values, W_dec)
    spread = (residual - residual.mean(0)).square().sum()
    return left.square().sum() / spread.clamp_min(torch.finfo(spread.dtype).tiny), units.numel()


def silent(tokens_since_fired: Tensor, dead_after_tokens: int) -> Tensor:
    """`[n]` bool: the latents that have not fired for that many tokens."""
    return tokens_since_fired >= dead_after_tokens


def zipf_densities(n: int, total: float, exponent: float) -> Tensor:
    """`[n]` float64, descending: densities p_r ∝ r^(−exponent) of the latents ranked r = 1 … n, with sum `total`.

    None is above 1: no latent fires on more than every token. What the first ranks would have above it goes to the
    others in proportion.
    """
    line = torch.arange(1, n + 1, dtype=torch.float64) ** -exponent
    # The densities descend, so those that are capped are the first few: find how many.
    tail = line.flip(0).cumsum(0).flip(0)
    left = total - torch.arange(n, dtype=torch.float64)
    uncapped = left * line / tail  # [n]: density of rank r when all before it are capped
    capped = int((uncapped > 1).long().cumprod(0).sum())
    densities = torch.ones(n, dtype=torch.float64)
    if capped < n:
        densities[capped:] = (total - capped) * line[capped:] / tail[capped]
    return densities


def under_used(density: Tensor, total: float, exponent: float, share: float) -> Tensor:
    """`[n]` bool: the latents whose density is below `share` of what Zipf's law expects of their rank.

    density `[n]`: share of tokens on which each fires. The line has the given exponent and sums to `total` (the target
    L0). Usage that follows the line leaves none; latents that never fire are always among them.
    """
    order = density.sort(descending=True, stable=True)
    expected = zipf_densities(density.numel(), total, exponent).to(density.device)
    below = order.values < share * expected
    return torch.zeros_like(below).scatter(0, order.indices, below)
