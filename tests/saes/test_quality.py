import dataclasses

import torch

from saes.dictionary import Weights
from saes.quality import NOT_CONVERGED_ABOVE, at_inference
from saes.relu import ReLU


def one_latent_per_axis(n):
    return ReLU(Weights(torch.eye(n), torch.zeros(n), torch.eye(n), torch.zeros(n)))


def tokens(counts):
    """`counts[i]` tokens on which axis i alone is 1."""
    return torch.eye(len(counts)).repeat_interleave(torch.tensor(counts), dim=0)


def test_dead_and_under_used_latents_are_shares_of_the_width():
    # Zipf's line with exponent 0.5 and sum 1 expects 0.359, 0.254, 0.207, 0.180 of ranks 1 to 4: 0.01 is below a tenth.
    x = tokens([50, 30, 19, 1])
    quality = at_inference(one_latent_per_axis(4), x, x, 30)
    assert (quality.dead_share, quality.under_used_share, quality.width) == (0.0, 0.25, 4)
    x = tokens([50, 30, 20, 0])
    quality = at_inference(one_latent_per_axis(4), x, x, 30)
    assert (quality.dead_share, quality.under_used_share) == (0.25, 0.25)
    assert (quality.l0, quality.explained_variance, quality.tokens) == (1.0, 1.0, 100)


def test_rising_is_gaining_more_than_the_one_threshold():
    x = tokens([5, 5])
    half = dataclasses.replace(at_inference(one_latent_per_axis(2), x, x, 4), explained_variance=0.5)
    assert not dataclasses.replace(half, explained_variance=0.5 + 0.9 * NOT_CONVERGED_ABOVE).still_rising(half)
    assert dataclasses.replace(half, explained_variance=0.5 + 1.1 * NOT_CONVERGED_ABOVE).still_rising(half)
    assert not dataclasses.replace(half, explained_variance=0.3).still_rising(half)
