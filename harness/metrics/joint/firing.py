"""Which units fire on which tokens, as plain arrays: what every estimator from codes alone is given."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from harness.metrics.joint.pairs import Fired


@dataclass(frozen=True)
class Firing:
    """Sparse rows. indptr `[tokens + 1]` int64; units `[entries]` int32, ascending within a token, each once; values
    `[entries]` float32, not zero; document `[tokens]` int64, any labels."""

    indptr: np.ndarray
    units: np.ndarray
    values: np.ndarray
    document: np.ndarray
    n_units: int

    @staticmethod
    def of(fired: Fired, document: np.ndarray) -> Firing:
        """What counts as firing at a site (pairs.strongest), with the document of every token `[tokens]`."""
        order = np.lexsort((fired.unit, fired.token))
        lengths = np.bincount(fired.token, minlength=fired.n_tokens)
        return Firing(
            np.concatenate([[0], np.cumsum(lengths)]),
            fired.unit[order].astype(np.int32),
            fired.value[order].astype(np.float32),
            document,
            fired.n_units,
        )

    @staticmethod
    def from_dense(values: np.ndarray, document: np.ndarray | None = None) -> Firing:
        """From `[tokens, units]`, zeros silent. document: default every token in one of its own."""
        token, unit = values.nonzero()
        indptr = np.concatenate([[0], np.cumsum((values != 0).sum(1))])
        document = np.arange(len(values)) if document is None else document
        return Firing(indptr, unit.astype(np.int32), values[token, unit].astype(np.float32), document, values.shape[1])

    @property
    def n_tokens(self) -> int:
        return len(self.indptr) - 1

    @cached_property
    def token(self) -> np.ndarray:
        """Of every entry. `[entries]` int32"""
        return np.repeat(np.arange(self.n_tokens, dtype=np.int32), np.diff(self.indptr))

    @cached_property
    def rates(self) -> np.ndarray:
        """On how many tokens each unit fires. `[units]` int64"""
        return np.bincount(self.units, minlength=self.n_units)

    @cached_property
    def by_unit(self) -> tuple[np.ndarray, np.ndarray]:
        """Entries of unit u, by token: `entry[ptr[u]:ptr[u + 1]]`. ptr `[units + 1]`, entry `[entries]`"""
        return np.concatenate([[0], np.cumsum(self.rates)]), np.argsort(self.units, kind="stable")

    def column(self, unit: int) -> np.ndarray:
        """Numbers of a unit's entries, by token."""
        ptr, entry = self.by_unit
        return entry[ptr[unit] : ptr[unit + 1]]

    def together(self, a: int, b: int) -> np.ndarray:
        """Tokens on which both units fire, ascending."""
        token = self.token
        return np.intersect1d(token[self.column(a)], token[self.column(b)], assume_unique=True)

    def keep(self, kept: np.ndarray) -> Firing:
        """Only the entries of the mask `[entries]`."""
        before = np.concatenate([[0], np.cumsum(kept)])
        return replace(self, indptr=before[self.indptr], units=self.units[kept], values=self.values[kept])

    def on(self, tokens: np.ndarray) -> Firing:
        """Only the tokens of the mask `[tokens]`."""
        inside = self.keep(tokens[self.token])
        indptr = np.concatenate([[0], np.cumsum(np.diff(inside.indptr)[tokens])])
        return replace(inside, indptr=indptr, document=self.document[tokens])

    def pool(self, number: int, width: int) -> Firing:
        """One pool alone: its `width` units (number · width and on), on the tokens where at least one fires."""
        inside = self.keep(self.units // width == number)
        visited = inside.on(np.diff(inside.indptr) > 0)
        return replace(visited, units=visited.units - np.int32(number * width), n_units=width)
