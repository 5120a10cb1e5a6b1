"""Activations of a subject as shuffled batches, a chunk in memory at a time.

The harness supplies `collect`, which runs the subject on some sequences; what a sequence or a site is, is its business.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Activations:
    """What a subject computed on some tokens: `rows` `[tokens, 2]` int64 (which sequence, which position) and for each
    site its pair (x `[tokens, d_in]`, target `[tokens, d_out]`); for autoencoders target is x itself."""

    rows: Tensor
    sites: Mapping[Hashable, tuple[Tensor, Tensor]]

    @property
    def n_tokens(self) -> int:
        return self.rows.shape[0]

    def take(self, tokens: Tensor) -> Activations:
        """The tokens with these indices, in this order."""
        sites = {}
        for site, (x, target) in self.sites.items():
            taken = x.index_select(0, tokens)
            sites[site] = (taken, taken if target is x else target.index_select(0, tokens))
        return Activations(self.rows.index_select(0, tokens), sites)

    def check_finite(self) -> None:
        """Raises ValueError naming site and token of the first NaN or infinite activation."""
        for site, pair in self.sites.items():
            for tensor in pair:
                # The sum is finite far more cheaply than each element; only a bad one is looked for.
                if not bool(torch.isfinite(tensor.sum(dtype=torch.float64))):
                    bad = (~torch.isfinite(tensor)).any(1).nonzero()
                    sequence, position = self.rows[int(bad[0])].tolist()
                    raise ValueError(
                        f"activation at site {site} is not finite on token (sequence {sequence}, position {position})"
                    )


# Runs the subject on the sequences with these indices `[n]` int64, tokens in order, without gradients.
Collect = Callable[[Tensor], Activations]


@dataclass(frozen=True)
class ActivationStream:
    """An endless, reproducible sequence of shuffled batches.

    Every epoch takes all sequences in another order. Chunk c holds the activations of consecutive sequences of that
    order, about `buffer_tokens` tokens, shuffled among themselves: a batch mixes the documents of its whole chunk.
    Orders depend on (seed, epoch) and (seed, c) only, so a killed run resumes from a chunk number.

    n_sequences: how many there are, indices 0 to n_sequences − 1; sequence_tokens: tokens of one, to size chunks by.
    Batches of a chunk are as equal as can be and at most `batch_tokens` long, so that no token is left out.
    """

    collect: Collect
    n_sequences: int
    sequence_tokens: int
    seed: int
    batch_tokens: int = 2048
    buffer_tokens: int = 32_768

    def __post_init__(self) -> None:
        for name in ("n_sequences", "sequence_tokens", "batch_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)}: must be at least 1")
        if self.buffer_tokens < self.batch_tokens:
            raise ValueError(f"buffer_tokens {self.buffer_tokens}: must be at least batch_tokens {self.batch_tokens}")

    def sequences(self, index: int) -> Tensor:
        """`[n]` int64: which sequences chunk `index` is made of."""
        per_chunk = min(self.n_sequences, max(1, self.buffer_tokens // self.sequence_tokens))
        per_epoch = -(-self.n_sequences // per_chunk)
        epoch, within = divmod(index, per_epoch)
        order = torch.randperm(self.n_sequences, generator=_generator(self.seed, 2 * epoch))
        return order[within * per_chunk : (within + 1) * per_chunk]

    def chunk(self, index: int) -> Activations:
        """The shuffled activations of chunk `index` (0, 1, …). Raises ValueError at activations that are not finite."""
        activations = self.collect(self.sequences(index))
        if not activations.n_tokens or not activations.sites:
            raise ValueError(f"the subject gave no activations (chunk {index}): no site, or no token in its sequences")
        activations.check_finite()
        # Even numbers seed the orders of epochs, odd ones those of chunks.
        shuffle = torch.randperm(activations.n_tokens, generator=_generator(self.seed, 2 * index + 1))
        return activations.take(shuffle.to(activations.rows.device))

    def batches(self, chunk: int = 0, batch: int = 0) -> Iterator[tuple[int, int, Activations]]:
        """(chunk, batch within it, activations) from that batch on, without end."""
        while True:
            activations = self.chunk(chunk)
            parts = torch.arange(activations.n_tokens, device=activations.rows.device)
            for index, part in enumerate(parts.tensor_split(-(-activations.n_tokens // self.batch_tokens))):
                if index >= batch:
                    yield chunk, index, activations.take(part)
            chunk, batch = chunk + 1, 0


def _generator(seed: int, number: int) -> torch.Generator:
    # Mixed through SplitMix64's multiplier: neighbouring (seed, number) pairs must not give related streams.
    mixed = (seed * 0x9E3779B97F4A7C15 + number * 0xBF58476D1CE4E5B9 + 0x94D049BB133111EB) % 2**63
    return torch.Generator().manual_seed(mixed)
