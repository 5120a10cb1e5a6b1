"""How much which unit fires says of which domain a text is from: learnt on dev, told on eval.

Firings are counted by document, since documents and not tokens are drawn. Domains differ in size, so a unit's firings
in each are taken of that domain's tokens. What is learnt of a unit that seldom fires is drawn to what holds of all, by
a weight that is chosen inside dev: so a unit that happened to fire in one document says nothing on eval, and a row of
many rare units does not look specialised by chance. [U: ours]
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from harness.metrics.joint.pairs import Fired

TWICE = 2.0  # MONET's rule: the mass in one domain is so many times the runner-up's
WEIGHTS = (1.0, 4.0, 16.0, 64.0, 256.0)  # firings that what is known of all units stands for


@dataclass(frozen=True)
class Counted:
    """Of one site: firings `[documents, units]`, the domain of each document (of `n_domains`), its tokens."""

    firings: csr_array
    n_units: int
    domain: np.ndarray
    tokens: np.ndarray
    n_domains: int

    def by_domain(self, domain: np.ndarray | None = None) -> np.ndarray:
        """Firings `[domains, units]` where the documents are of these domains (default: of their own), divided by each
        domain's tokens."""
        domain = self.domain if domain is None else domain
        of = csr_array((np.ones(len(domain)), (domain, np.arange(len(domain)))), shape=(self.n_domains, len(domain)))
        tokens = np.bincount(domain, self.tokens, minlength=self.n_domains)
        found = csr_array(of @ self.firings).toarray()
        return found.astype(np.float64) / np.maximum(tokens, 1)[:, None]

    def often(self, firings: int, documents: int) -> np.ndarray:
        """Units that fire so often and in so many documents. `[units]` bool"""
        total = np.asarray(self.firings.sum(0)).reshape(-1)
        return (total >= firings) & (np.bincount(self.firings.indices, minlength=self.n_units) >= documents)

    def of(self, documents: np.ndarray) -> Counted:
        """Only these documents."""
        return Counted(
            csr_array(self.firings[documents]), self.n_units, self.domain[documents], self.tokens[documents],
            self.n_domains,
        )  # fmt: skip

    def grouped(self, width: int) -> Counted:
        """Units of a group counted as one."""
        units, n_groups = np.arange(self.n_units), self.n_units // width
        of = csr_array((np.ones(self.n_units), (units, units // width)), shape=(self.n_units, n_groups))
        return Counted(csr_array(self.firings @ of), n_groups, self.domain, self.tokens, self.n_domains)


def count(fired: Fired, document: np.ndarray, domain: np.ndarray, n_domains: int) -> Counted:
    """document: of every token, numbered from 0; domain: of every document."""
    return counted(document[fired.token], fired.unit, fired.n_units, document, domain, n_domains)


def counted(
    row: np.ndarray, unit: np.ndarray, n_units: int, document: np.ndarray, domain: np.ndarray, n_domains: int
) -> Counted:
    """row: the document of every firing `[m]`; unit `[m]`."""
    firings = csr_array((np.ones(len(row)), (row, unit)), shape=(len(domain), n_units))
    firings.sum_duplicates()
    return Counted(firings, n_units, domain, np.bincount(document, minlength=len(domain)), n_domains)


def information(dev: Counted, held_out: Counted, rng: np.random.Generator) -> np.ndarray:
    """Columns `[documents of held_out, 2]`, whose sums' ratio is log2 p(domain | unit) / p(domain) in bits, the mean
    over firings with every domain alike: what a reader who saw dev gains in telling a domain by one unit that fires. 0
    where he knows nothing, below where what he learnt is wrong, at most log2 of the number of domains."""
    return _scored(_learnt(dev, _weight(dev, rng)), held_out)


def _weight(dev: Counted, rng: np.random.Generator) -> float:
    """That of `WEIGHTS` which tells one half of dev's documents best by the other."""
    half = np.zeros(len(dev.domain), bool)
    for domain in range(dev.n_domains):
        places = rng.permutation(np.flatnonzero(dev.domain == domain))
        half[places[: len(places) // 2]] = True
    parts = dev.of(np.flatnonzero(half)), dev.of(np.flatnonzero(~half))
    scores = []
    for weight in WEIGHTS:
        both = [_scored(_learnt(a, weight), b).sum(0) for a, b in (parts, parts[::-1])]
        scores.append(sum(score / max(mass, 1e-300) for score, mass in both))
    return WEIGHTS[int(np.argmax(scores))]


def _learnt(dev: Counted, weight: float) -> np.ndarray:
    """log2 p(domain | unit) / p(domain) `[domains, units]`."""
    rate = dev.by_domain()
    rate = rate * (dev.firings.sum() / max(rate.sum(), 1e-300))  # as many firings as there were
    prior = np.maximum(rate.sum(1), 1e-12)
    prior = prior / prior.sum()
    posterior = (rate + weight * prior[:, None]) / (rate.sum(0) + weight)
    return np.log2(posterior / prior[:, None])


def _scored(said: np.ndarray, held_out: Counted) -> np.ndarray:
    size = np.bincount(held_out.domain, held_out.tokens, minlength=held_out.n_domains)
    columns = np.zeros((len(held_out.domain), 2))
    for domain in np.unique(held_out.domain):
        places = np.flatnonzero(held_out.domain == domain)
        firings = held_out.firings[places]
        columns[places, 0] = firings @ said[domain] / size[domain]
        columns[places, 1] = np.asarray(firings.sum(1)).reshape(-1) / size[domain]
    return columns


def specialised(by_domain: np.ndarray) -> np.ndarray:
    """Of each unit, the domain in which its mass is at least twice the runner-up's; −1 for none. `[units]`"""
    ordered = np.sort(by_domain, axis=0)
    special = (ordered[-1] > 0) & (ordered[-1] >= TWICE * ordered[-2])
    return np.where(special, by_domain.argmax(0), -1)


def stays(told: np.ndarray, held_out: Counted) -> np.ndarray:
    """Whether a unit has most of its mass on held-out text in the domain that dev gave it (`told`; −1: none). `[units]`
    bool"""
    rates = held_out.by_domain()
    return (told >= 0) & (rates.sum(0) > 0) & (rates.argmax(0) == told)


def dealt(domain: np.ndarray, tokens: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Domains of the documents dealt out anew among documents of like length, so that a domain's tokens stay near what
    they are: documents in the order of their length, exchanged within runs of as many as there are domains."""
    order = np.lexsort((rng.random(len(tokens)), tokens))
    run = max(2, len(np.unique(domain)))
    new = domain.copy()
    for start in range(0, len(order), run):
        here = order[start : start + run]
        new[here] = domain[rng.permutation(here)]
    return new
