"""A stand-in for a subject: tokens that are sums of known features."""

from __future__ import annotations

from collections.abc import Hashable

import torch
from torch import Tensor

from saes.activations import Activations
from saes.auxiliary import zipf_densities
from saes.saelens import ActivationGenerator, FeatureDictionary


class Planted:
    """Tokens that are sums of known features, from SAELens' `synthetic` module: a stand-in for a subject.

    More features than dimensions, fired by Zipf's law, with magnitudes that vary. A sequence is drawn from its number,
    so any part of the data can be made again. Site `planted` is for autoencoders; at `mapped` the target is the same
    features in other directions, for transcoders.
    """

    site = "planted"
    mapped = "mapped"

    def __init__(self, n_features: int, d: int, per_token: float, sequence_tokens: int, seed: int) -> None:
        """per_token: features in a token, on average. Raises ValueError when Zipf's law cannot give so many."""
        self.sequence_tokens, self.seed = sequence_tokens, seed
        line = zipf_densities(n_features, per_token, exponent=0.5).float()
        if not 0 < per_token <= n_features / 2:
            raise ValueError(f"per_token {per_token}: must be above 0 and at most half of n_features {n_features}")
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.dictionary = FeatureDictionary(n_features, d).requires_grad_(False)
            self.outputs = FeatureDictionary(n_features, d).requires_grad_(False)
        self.generator = ActivationGenerator(n_features, line.clamp(max=0.5), std_firing_magnitudes=0.3)

    @property
    def features(self) -> Tensor:
        """`[n_features, d]`."""
        return self.dictionary.feature_vectors

    def directions(self, site: Hashable) -> Tensor:
        """The features as a site's target holds them. `[n_features, d]`"""
        return self.outputs.feature_vectors if site == self.mapped else self.features

    def activations(self, sequences: Tensor) -> Tensor:
        """How strongly each feature is in each token. `[tokens, n_features]`."""
        parts = []
        for sequence in sequences.tolist():
            with torch.random.fork_rng():
                torch.manual_seed((self.seed + 1) * 1_000_003 + sequence)
                parts.append(self.generator.sample(self.sequence_tokens))
        return torch.cat(parts)

    def __call__(self, sequences: Tensor) -> Activations:
        """What `ActivationStream` collects."""
        activations = self.activations(sequences)
        x = self.dictionary(activations)
        positions = torch.arange(self.sequence_tokens).repeat(len(sequences))
        rows = torch.stack([sequences.repeat_interleave(self.sequence_tokens), positions], 1)
        return Activations(rows, {self.site: (x, x), self.mapped: (x, self.outputs(activations))})
