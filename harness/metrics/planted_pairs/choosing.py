"""Which two units stand for a pair of concepts: of those that tell its parts best two that can be edited together."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from harness.corpus.labels import Concept, Integers, Labels
from harness.metrics.concepts.tellers import Teller
from harness.metrics.concepts.tokens import Asked
from harness.metrics.joint.pairs import Chosen, Fired, PairContexts, Stratum
from harness.systems.system import Site

UNPLANTED = "unplanted"  # two concepts that hold together now and then and are no pair of the language


@dataclass(frozen=True)
class ConceptPair:
    """Two places among the concepts that are asked about, and how the corpus relates them: the kind of their label."""

    relation: str
    first: int
    second: int


@dataclass(frozen=True)
class Tested:
    """A pair of concepts and the units in whose place they are edited, A at the same site as B or before it.

    entries_a, entries_b: where in what fired on eval, on each of the contexts `[contexts]`."""

    pair: ConceptPair
    a: Teller
    b: Teller
    entries_a: Integers
    entries_b: Integers

    @property
    def stratum(self) -> Stratum:
        return Stratum(self.a.site, self.b.site)


def only_parts(labels: Labels) -> Labels:
    """Only the concepts that pairs are made of: nothing else is looked for in the units."""
    named = {part for concept in labels.concepts for part in concept.parts}
    kept = np.array([concept.name in named for concept in labels.concepts], bool)
    here = kept[labels.held]
    before = np.concatenate([[0], np.cumsum(here)])
    held = (np.cumsum(kept) - 1)[labels.held[here]].astype(np.int32)
    return Labels(tuple(itertools.compress(labels.concepts, kept)), before[labels.indptr], held, labels.known)


def planted(concepts: tuple[Concept, ...], asking: Asked) -> tuple[list[ConceptPair], list[str]]:
    """The pairs of two concepts that a corpus names, of which both are asked about; and the relations of the others."""
    place = {concept.name: at for at, concept in enumerate(asking.concepts)}
    pairs = [concept for concept in concepts if len(concept.parts) == 2]
    known = [all(part in place for part in pair.parts) for pair in pairs]
    found = [ConceptPair(pair.kind, *(place[part] for part in pair.parts)) for pair in itertools.compress(pairs, known)]
    return found, [pair.kind for pair, asked in zip(pairs, known, strict=True) if not asked]


def unplanted(concepts: tuple[Concept, ...], asking: Asked, contexts: int) -> list[ConceptPair]:
    """Pairs of concepts that are none of the corpus, and that hold together on so many tokens of eval."""
    held = asking.eval.matrix()
    together = (held.T @ held).toarray()
    pairs = {frozenset(concept.parts) for concept in concepts if len(concept.parts) == 2}
    return [
        ConceptPair(UNPLANTED, first, second)
        for first, second in itertools.combinations(range(len(asking.concepts)), 2)
        if together[first, second] >= contexts
        and frozenset((asking.concepts[first].name, asking.concepts[second].name)) not in pairs
    ]


class Choosing:
    """Finds the units and the contexts of pairs of concepts on eval."""

    def __init__(
        self, asking: Asked, told: list[list[Teller]], test: Mapping[Site, Fired], contexts: int,
        rng: np.random.Generator,
    ) -> None:  # fmt: skip
        self.told, self.test, self.contexts, self.rng = told, test, contexts, rng
        self._place = {site: at for at, site in enumerate(test)}
        self._holds = asking.eval.tokens_of_each()
        self._columns: dict[Site, tuple[Integers, Integers]] = {}

    def is_told(self, pair: ConceptPair) -> bool:
        """Whether each part has a unit that tells it."""
        return bool(self.told[pair.first]) and bool(self.told[pair.second])

    def tested(self, pair: ConceptPair) -> Tested | None:
        """With the two units of the largest sum of dev F1 that both fire in enough of the contexts in which both
        concepts hold; None where no two do. Which outcome an edit has is not looked at."""
        both = np.intersect1d(self._holds[pair.first], self._holds[pair.second], assume_unique=True)
        options = itertools.product(self.told[pair.first], self.told[pair.second])
        for one, other in sorted(options, key=lambda units: -(units[0].chosen + units[1].chosen)):
            if (one.site, one.unit) == (other.site, other.unit):
                continue
            a, b = (one, other) if self._place[one.site] <= self._place[other.site] else (other, one)
            entries_a, entries_b = self._entries(a), self._entries(b)
            token_a, token_b = self.test[a.site].token[entries_a], self.test[b.site].token[entries_b]
            common, in_a, in_b = np.intersect1d(token_a, token_b, assume_unique=True, return_indices=True)
            where = np.flatnonzero(np.isin(common, both, assume_unique=True))
            if len(where) >= self.contexts:
                drawn = np.sort(self.rng.choice(where, self.contexts, replace=False))
                return Tested(pair, a, b, entries_a[in_a[drawn]], entries_b[in_b[drawn]])
        return None

    def all_tested(self, pairs: Iterable[ConceptPair]) -> Iterator[Tested]:
        """Those that can be tested, in their order."""
        for pair in pairs:
            found = self.tested(pair) if self.is_told(pair) else None
            if found is not None:
                yield found

    def _entries(self, unit: Teller) -> Integers:
        """Where a unit fires with the sign that tells its concept, by token."""
        fired = self.test[unit.site]
        if unit.site not in self._columns:
            order = np.argsort(fired.unit, kind="stable")
            self._columns[unit.site] = order, np.searchsorted(fired.unit[order], np.arange(fired.n_units + 1))
        order, starts = self._columns[unit.site]
        entries = order[starts[unit.unit] : starts[unit.unit + 1]]
        return entries[np.sign(fired.value[entries]) == unit.sign]


def by_stratum(tested: list[Tested], test: Mapping[Site, Fired]) -> tuple[list[Tested], list[Chosen]]:
    """The pairs put in order of their sites, and as the joint metric wants them: one `Chosen` for every two sites."""
    place = {site: at for at, site in enumerate(test)}
    ordered = sorted(tested, key=lambda one: (place[one.a.site], place[one.b.site]))
    chosen, number = [], 0
    for stratum, group in itertools.groupby(ordered, key=lambda one: one.stratum):
        of_stratum = list(group)
        parts = [_contexts(one, test, number + at) for at, one in enumerate(of_stratum)]
        units = np.array([[one.a.unit, one.b.unit] for one in of_stratum])
        fewest = min(len(part) for part in parts)
        chosen.append(Chosen(stratum, units, PairContexts.cat(parts), 1.0, fewest))
        number += len(of_stratum)
    return ordered, chosen


def _contexts(tested: Tested, test: Mapping[Site, Fired], number: int) -> PairContexts:
    a, b = test[tested.a.site], test[tested.b.site]
    in_a, in_b = tested.entries_a, tested.entries_b
    return PairContexts(
        np.full(len(in_a), number), a.token[in_a], a.value[in_a], b.value[in_b], a.strength[in_a], b.strength[in_b]
    )
