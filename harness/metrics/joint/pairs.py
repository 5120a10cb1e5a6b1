"""Which pairs of units are tested, in which contexts: chosen on dev, tested on eval, equally many in every system."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from harness.systems.system import Encoded, Site

if TYPE_CHECKING:
    from harness.corpus import Batch
    from harness.systems.evaluation import Evaluation

_PRODUCT_UNITS = 4096  # rows of units × units held at once while counting who fires together


@dataclass(frozen=True)
class Fired:
    """What counts as firing at one site: entries `[m]` by token. token: counted over the split, in stored order.
    n_text: how many of the n_tokens are text (`Evaluation.counted`); nothing fires on the others."""

    token: np.ndarray
    unit: np.ndarray
    value: np.ndarray
    strength: np.ndarray
    n_tokens: int
    n_text: int
    n_units: int

    def incidence(self) -> sparse.csc_matrix:
        """`[tokens, units]` of ones; int32, so that products of two count."""
        ones = np.ones(len(self.token), np.int32)
        return sparse.csc_matrix((ones, (self.token, self.unit)), shape=(self.n_tokens, self.n_units))

    def entries(self) -> sparse.csc_matrix:
        """`[tokens, units]`: number of the entry, from 1."""
        number = np.arange(1, len(self.token) + 1)
        return sparse.csc_matrix((number, (self.token, self.unit)), shape=(self.n_tokens, self.n_units))


@dataclass(frozen=True)
class Stratum:
    """Pairs of which A is at one site and B at the same one or the next: compared at matched depth only."""

    a: Site
    b: Site

    @property
    def within(self) -> bool:
        return self.a == self.b


@dataclass(frozen=True)
class PairContexts:
    """`[contexts]` each; `pair` counts over all pairs of the metric, `token` over the split.

    values: what multiplies the write; strengths: the norm of what is written.
    """

    pair: np.ndarray
    token: np.ndarray
    value_a: np.ndarray
    value_b: np.ndarray
    strength_a: np.ndarray
    strength_b: np.ndarray

    def __len__(self) -> int:
        return len(self.pair)

    @staticmethod
    def cat(parts: list[PairContexts]) -> PairContexts:
        columns = ("pair", "token", "value_a", "value_b", "strength_a", "strength_b")
        return PairContexts(*(np.concatenate([getattr(part, name) for part in parts]) for name in columns))


@dataclass(frozen=True)
class Chosen:
    """Pairs of one stratum, and contexts for each. units `[pairs, 2]`. testable: share of the co-activations on dev
    that pairs with enough contexts on eval account for. best: most contexts that any candidate pair has."""

    stratum: Stratum
    units: np.ndarray
    contexts: PairContexts
    testable: float
    best: int


def strongest(encoded: Encoded, active: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """token, unit, value, strength of the `active` strongest entries of every token."""
    codes, kept = encoded.codes, encoded.strongest(active)
    columns = codes.token_of_entry()[kept], codes.units[kept], codes.values[kept], encoded.strengths[kept]
    token, unit, value, strength = (column.detach().cpu().numpy() for column in columns)
    return token, unit, value, strength


def fired(evaluation: Evaluation, batches: Iterable[Batch], active: int) -> dict[Site, Fired]:
    """Reads `batches` through the system; of every site what counts as firing, on tokens of text alone."""
    system = evaluation.system
    parts: dict[Site, list[tuple[np.ndarray, ...]]] = {site: [] for site in system.sites}
    n_units: dict[Site, int] = {}
    seen = n_text = 0
    for batch in batches:
        counted = evaluation.counted(batch.input_ids).reshape(-1).cpu().numpy()
        for site, encoded in system.encode(batch.input_ids).items():
            token, *rest = strongest(encoded, active)
            kept = counted[token]
            parts[site].append((token[kept] + seen, *(column[kept] for column in rest)))
            n_units[site] = encoded.codes.n_units
        seen += len(counted)
        n_text += int(counted.sum())
    joined = {site: [np.concatenate(column) for column in zip(*found, strict=True)] for site, found in parts.items()}
    return {
        site: Fired(token, unit, value, strength, seen, n_text, n_units[site])
        for site, (token, unit, value, strength) in joined.items()
    }


def strata(sites: tuple[Site, ...]) -> list[Stratum]:
    """Every site with itself, and with the next."""
    return [Stratum(site, site) for site in sites] + [Stratum(a, b) for a, b in itertools.pairwise(sites)]


def choose(
    stratum: Stratum,
    dev: Mapping[Site, Fired],
    test: Mapping[Site, Fired],
    *,
    pairs: int,
    contexts: int,
    first_pair: int,
    rng: np.random.Generator,
) -> Chosen:
    """Draws pairs in proportion to how often they fire together on dev, without putting back, among those that fire
    together at least `contexts` times on eval; and for each exactly that many of its eval tokens, at random."""
    a, b, together = coactivations(dev[stratum.a], dev[stratum.b], stratum.within)
    there = _counts(test[stratum.a], test[stratum.b], a, b)
    enough = there >= contexts
    mass = float(together[enough].sum() / together.sum()) if len(together) else 0.0
    # Exponential races: the first to finish are a draw in proportion to the rates, without putting back.
    finish = rng.exponential(size=len(a)) / together
    order = np.argsort(np.where(enough, finish, np.inf))[: min(pairs, int(enough.sum()))]
    units = np.stack([a[order], b[order]], axis=1)
    found = [
        _contexts(test[stratum.a], test[stratum.b], pair, first_pair + i, contexts, rng)
        for i, pair in enumerate(_by_pair(test, stratum, units))
    ]
    empty = PairContexts(*(np.zeros(0, np.int64) for _ in range(2)), *(np.zeros(0, np.float32) for _ in range(4)))
    return Chosen(stratum, units, PairContexts.cat([empty, *found]), mass, int(there.max(initial=0)))


def coactivations(a: Fired, b: Fired, within: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs that fire together and on how many tokens: units of a, units of b (within a site a < b), counts. Grows with
    co-activations, in blocks of units: never units × units."""
    left, right = a.incidence(), b.incidence()
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for start in range(0, a.n_units, _PRODUCT_UNITS):
        counts = sparse.coo_matrix(left[:, start : start + _PRODUCT_UNITS].T @ right)
        rows = counts.row + start
        kept = rows < counts.col if within else np.ones(len(rows), bool)
        parts.append((rows[kept].astype(np.int64), counts.col[kept].astype(np.int64), counts.data[kept]))
    first, second, together = (np.concatenate(column) for column in zip(*parts, strict=True))
    return first, second, together


def shuffled(chosen: Chosen, test: Mapping[Site, Fired], contexts: int, rng: np.random.Generator) -> PairContexts:
    """The same pairs where A fires, with B's values permuted over tokens: what B then says has nothing to do with A.

    B is put in with a value (and strength) that it has on another token, drawn from all on which it fires.
    """
    a, b = test[chosen.stratum.a], test[chosen.stratum.b]
    of_a, of_b = a.entries(), b.entries()
    parts = [chosen.contexts]
    for i, (unit_a, unit_b) in enumerate(chosen.units):
        firing, other = _column(of_a, unit_a), _column(of_b, unit_b)
        at = rng.choice(firing, contexts, replace=len(firing) < contexts)
        value = rng.choice(other, contexts)
        pair = np.full(contexts, chosen.contexts.pair.reshape(len(chosen.units), -1)[i, 0])
        parts.append(
            PairContexts(pair, a.token[at], a.value[at], b.value[value], a.strength[at], b.strength[value])
        )  # fmt: skip
    return PairContexts.cat(parts[1:]) if len(parts) > 1 else chosen.contexts


def together_at(a: Fired, b: Fired, unit: int) -> np.ndarray:
    """Units of b that fire on some token on which `unit` of a fires."""
    here = np.zeros(a.n_tokens, bool)
    here[a.token[a.unit == unit]] = True
    return np.unique(b.unit[here[b.token]])


def _counts(a: Fired, b: Fired, units_a: np.ndarray, units_b: np.ndarray) -> np.ndarray:
    """On how many tokens these pairs fire together. `[pairs]`"""
    found_a, found_b, together = coactivations(a, b, within=False)
    keys = found_a * b.n_units + found_b
    order = np.argsort(keys)
    keys, together = keys[order], together[order]
    wanted = units_a * b.n_units + units_b
    if not len(keys):
        return np.zeros(len(wanted), np.int64)
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, together[place], 0)


def _column(matrix: sparse.csc_matrix, unit: int) -> np.ndarray:
    """Entries of one unit, by token."""
    return matrix.data[matrix.indptr[unit] : matrix.indptr[unit + 1]] - 1


def _by_pair(
    test: Mapping[Site, Fired], stratum: Stratum, units: np.ndarray
) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    of_a = test[stratum.a].entries()
    of_b = of_a if stratum.within else test[stratum.b].entries()
    for unit_a, unit_b in units:
        yield _column(of_a, unit_a), _column(of_b, unit_b)


def _contexts(
    a: Fired, b: Fired, entries: tuple[np.ndarray, np.ndarray], pair: int, n: int, rng: np.random.Generator
) -> PairContexts:
    of_a, of_b = entries
    common, in_a, in_b = np.intersect1d(a.token[of_a], b.token[of_b], assume_unique=True, return_indices=True)
    drawn = np.sort(rng.choice(len(common), n, replace=False))
    at, bt = of_a[in_a[drawn]], of_b[in_b[drawn]]
    return PairContexts(
        np.full(n, pair), common[drawn], a.value[at], b.value[bt], a.strength[at], b.strength[bt]
    )  # fmt: skip
