"""Activations with planted sparse features, as a subject would give them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from saes.activations import Activations


class Planted:
    """Every token is the sum of a few of `n_features` unit directions, off centre: what a dictionary should find."""

    def __init__(self, d: int = 16, n_features: int = 24, per_token: float = 2.0, tokens: int = 32) -> None:
        generator = torch.Generator().manual_seed(7)
        features = torch.randn(n_features, d, generator=generator)
        self.features = features / features.norm(dim=1, keepdim=True)
        self.mean = torch.randn(d, generator=generator)
        self.out = torch.randn(d, 2 * d, generator=generator) / d**0.5
        self.p, self.tokens = per_token / n_features, tokens

    def __call__(self, sequences: Tensor) -> Activations:
        """Site `sae`: x twice. Site `mlp`: x and a wider linear function of relu(x)."""
        rows, parts = [], []
        for sequence in sequences.tolist():
            generator = torch.Generator().manual_seed(10_000 + sequence)
            shape = (self.tokens, self.features.shape[0])
            on = torch.rand(shape, generator=generator) < self.p
            parts.append((on * (1 + torch.rand(shape, generator=generator))) @ self.features * 3 + self.mean)
            rows.append(torch.stack([torch.full((self.tokens,), sequence), torch.arange(self.tokens)], 1))
        x = torch.cat(parts)
        return Activations(torch.cat(rows), {"sae": (x, x), "mlp": (x, x.relu() @ self.out)})


@pytest.fixture(scope="session")
def planted() -> Planted:
    return Planted()


@pytest.fixture(scope="session")
def explained_variance() -> Callable[[Tensor, Tensor], float]:
    def figure(target: Tensor, output: Tensor) -> float:
        return 1 - float((target - output).square().sum() / (target - target.mean(0)).square().sum())

    return figure


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """These sizes are so small that a second thread costs more than it does."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)
