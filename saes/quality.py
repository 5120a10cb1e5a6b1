"""How well a dictionary does on given tokens, as it trains (selecting over batches) and as it is used (one by one)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.codes import Codes, ReadWrite
from saes.auxiliary import under_used
from saes.training_dictionary import Standardisation, TrainingModule

# Explained variance gained in the second half of the budget above which a dictionary is called not converged. Ours; the
# second half holds the decay of the learning rate, so a dictionary that has plateaued gains a little too.
NOT_CONVERGED_ABOVE = 0.01
# What "under-used" means in a report, the same for every kind: used less than this share of what a Zipf line of this
# exponent expects of the latent's rank (see saes.auxiliary.under_used). Feature Choice trains towards such a line.
ZIPF_EXPONENT = 0.5
UNDER_USED_SHARE = 0.1


@dataclass(frozen=True)
class Quality:
    """explained_variance 1 − Σ‖t − t̂‖²/Σ‖t − t̄‖² over all `tokens`, l0 latents firing per token, dead_share of latents
    that fire on none of them, under_used_share of latents that fire less than a tenth as often as their rank makes
    expect (dead ones included; the line sums to l0); width: latents."""

    explained_variance: float
    l0: float
    dead_share: float
    under_used_share: float
    width: int
    tokens: int

    def still_rising(self, half: Quality) -> bool:
        """Whether explained variance still rose since `half` of the budget: not converged."""
        return self.explained_variance - half.explained_variance > NOT_CONVERGED_ABOVE


@torch.no_grad()
def as_trained(
    module: TrainingModule, x: Tensor, target: Tensor, x_to: Standardisation, target_to: Standardisation, batch: int
) -> Quality:
    """With the selection of training, on batches of raw activations x `[tokens, d_in]`, target `[tokens, d_out]`."""

    def parts() -> Iterator[tuple[Tensor, Tensor]]:
        for some_x, some_target in zip(x.split(batch), target.split(batch), strict=True):
            result = module.step(x_to(some_x), target_to(some_target))
            # A step divides by the variance within its batch, and works at the standardised scale.
            spread = (some_target - some_target.mean(0)).double().square().sum()
            yield result.reconstruction.double() * spread, result.fired

    return _quality(target, parts())


@torch.no_grad()
def at_inference(dictionary: ReadWrite, x: Tensor, target: Tensor, batch: int) -> Quality:
    """As the dictionary is used: each token by itself. x `[tokens, d_in]`, target `[tokens, d_out]`, raw."""

    def parts() -> Iterator[tuple[Tensor, Tensor]]:
        for some_x, some_target in zip(x.split(batch), target.split(batch), strict=True):
            rows = torch.zeros(some_x.shape[0], 2, dtype=torch.long, device=x.device)
            codes: Codes = dictionary.read(some_x, rows)
            output = dictionary.write(codes, some_x) + dictionary.rest(some_x)
            fired = torch.bincount(codes.units, minlength=dictionary.n_units)
            yield (some_target - output).double().square().sum(), fired

    return _quality(target, parts())


def _quality(target: Tensor, parts: Iterator[tuple[Tensor, Tensor]]) -> Quality:
    squares, fired = zip(*parts, strict=True)
    wide = target.double()
    total = (wide - wide.mean(0)).square().sum()
    counts = torch.stack(fired).sum(0)
    l0 = float(counts.sum()) / target.shape[0]
    below = under_used(counts.double() / target.shape[0], l0, ZIPF_EXPONENT, UNDER_USED_SHARE)
    return Quality(
        explained_variance=1.0 - float(sum(squares) / total),
        l0=l0,
        dead_share=float((counts == 0).double().mean()),
        under_used_share=float((below | (counts == 0)).double().mean()),
        width=counts.numel(),
        tokens=target.shape[0],
    )
