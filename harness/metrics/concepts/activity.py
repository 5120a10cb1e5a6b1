"""Which unit is how active on which token, unit by unit and the strongest first: what a threshold sweeps over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from kernels.codes import Codes

Integers = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Activity:
    """Detectors over `n_tokens` tokens. A unit is two of them, since a negative coefficient may mean something else
    than a positive one: detector 2u is active where unit u is positive, 2u + 1 where it is negative.

    indptr `[2 · units + 1]`; tokens `[nnz]` int32; values `[nnz]` float32, positive, descending within a detector.
    """

    n_tokens: int
    indptr: Integers
    tokens: NDArray[np.int32]
    values: Floats

    @property
    def n_units(self) -> int:
        return (len(self.indptr) - 1) // 2

    def of(self, detector: int) -> tuple[NDArray[np.int32], Floats]:
        """Tokens and values of one detector, the strongest first."""
        here = slice(self.indptr[detector], self.indptr[detector + 1])
        return self.tokens[here], self.values[here]

    def firings(self) -> Integers:
        """On how many tokens each unit is active, with either sign. `[units]`"""
        return np.diff(self.indptr[::2])

    def restricted(self, units: Integers) -> Activity:
        """Only these units, in this order."""
        detectors = np.stack([2 * units, 2 * units + 1], 1).reshape(-1)
        lengths = np.diff(self.indptr)[detectors]
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        entries = np.arange(indptr[-1]) + np.repeat(self.indptr[detectors] - indptr[:-1], lengths)
        return Activity(self.n_tokens, indptr, self.tokens[entries], self.values[entries])


def activity(parts: Sequence[Codes]) -> Activity:
    """The units of several sites side by side, in the order of the sites, on the same tokens."""
    n_tokens = parts[0].n_tokens
    indptrs, tokens, values, offset = [np.zeros(1, np.int64)], [], [], 0
    for codes in parts:
        entries = codes.values.detach().float().numpy()
        columns = 2 * codes.units.numpy() + (entries < 0)
        shape = (n_tokens, 2 * codes.n_units)
        by_token = csr_array((np.abs(entries), columns, codes.indptr.numpy()), shape=shape)
        by_unit = by_token.tocsc()
        here_tokens, here_values = by_unit.indices.astype(np.int32), by_unit.data.astype(np.float32)
        bounds = by_unit.indptr.astype(np.int64)
        _strongest_first(bounds, here_tokens, here_values)
        indptrs.append(bounds[1:] + offset)
        offset += int(bounds[-1])
        tokens.append(here_tokens)
        values.append(here_values)
    return Activity(n_tokens, np.concatenate(indptrs), np.concatenate(tokens), np.concatenate(values))


def _strongest_first(indptr: Integers, tokens: NDArray[np.int32], values: Floats) -> None:
    """Sorts every column by value, descending, in place. Numpy sorts with the vector units; equal values may end in any
    order, which no threshold sees."""
    for first, last in zip(indptr[:-1].tolist(), indptr[1:].tolist(), strict=True):
        if last - first > 1:
            order = np.argsort(-values[first:last]) + first
            tokens[first:last], values[first:last] = tokens[order], values[order]
