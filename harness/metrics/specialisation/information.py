"""How much which unit fires says of which domain a text is from.

Firings are counted by document, since documents and not tokens are drawn: what is shuffled is which domain a document
is of. Domains differ in size, so a unit's share in each is taken of that domain's tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from harness.metrics.joint.pairs import Fired

TWICE = 2.0  # MONET's rule: the mass in one domain is so many times the runner-up's


@dataclass(frozen=True)
class Counted:
    """Of one or several sites side by side: firings `[documents, units]`, the domain of each document, its tokens."""

    firings: csr_array
    n_units: int
    domain: np.ndarray
    tokens: np.ndarray

    @property
    def n_domains(self) -> int:
        return int(self.domain.max()) + 1

    def by_domain(self, domain: np.ndarray) -> np.ndarray:
        """Firings `[domains, units]` where the documents are of these domains, divided by each domain's tokens."""
        of = csr_array((np.ones(len(domain)), (domain, np.arange(len(domain)))), shape=(self.n_domains, len(domain)))
        tokens = np.bincount(domain, self.tokens, minlength=self.n_domains)
        found = csr_array(of @ self.firings).toarray()
        return found.astype(np.float64) / np.maximum(tokens, 1)[:, None]

    def grouped(self, width: int) -> Counted:
        """Units of a group counted as one."""
        units = np.arange(self.n_units)
        of = csr_array((np.ones(len(units)), (units, units // width)), shape=(len(units), len(units) // width))
        return Counted(csr_array(self.firings @ of), len(units) // width, self.domain, self.tokens)


def count(fired: list[Fired], document: np.ndarray, domain: np.ndarray) -> Counted:
    """document: of every token, numbered from 0; domain: of every document."""
    n_documents = len(domain)
    parts, width = [], 0
    for one in fired:
        parts.append((document[one.token], one.unit + width))
        width += one.n_units
    rows, columns = (np.concatenate(part) for part in zip(*parts, strict=True))
    firings = csr_array((np.ones(len(rows)), (rows, columns)), shape=(n_documents, width))
    firings.sum_duplicates()
    return Counted(firings, width, domain, np.bincount(document, minlength=n_documents))


def information(by_domain: np.ndarray) -> float:
    """I(unit; domain) in bits of a firing drawn from a domain drawn evenly: which unit it is tells so much of where."""
    p = by_domain / max(by_domain.sum(), 1e-300)
    independent = p.sum(1, keepdims=True) * p.sum(0, keepdims=True)
    there = p > 0
    return float((p[there] * np.log2(p[there] / independent[there])).sum())


def specialised(by_domain: np.ndarray) -> np.ndarray:
    """Of each unit, the domain in which its mass is at least twice the runner-up's; −1 for none. `[units]`"""
    ordered = np.sort(by_domain, axis=0)
    special = (ordered[-1] > 0) & (ordered[-1] >= TWICE * ordered[-2])
    return np.where(special, by_domain.argmax(0), -1)


def shuffles(counted: Counted, n: int, rng: np.random.Generator) -> list[np.ndarray]:
    """`by_domain` with the domains of the documents dealt out anew, n times."""
    return [counted.by_domain(rng.permutation(counted.domain)) for _ in range(n)]
