"""The concepts that hold on the tokens of one split, as the metric counts them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from harness.corpus.labels import Concept, Labels

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Held:
    """Tokens × concepts, sparse: indptr `[tokens + 1]`, concepts `[nnz]` int32. document: of every token, numbered from
    0 in the order of their ids `[tokens]`."""

    indptr: Integers
    concepts: NDArray[np.int32]
    n_concepts: int
    document: Integers

    @property
    def n_tokens(self) -> int:
        return len(self.indptr) - 1

    def positives(self) -> Integers:
        """On how many tokens each concept holds. `[concepts]`"""
        return np.bincount(self.concepts, minlength=self.n_concepts)

    def tokens_of_each(self) -> list[Integers]:
        """The tokens of every concept, ascending."""
        token = np.repeat(np.arange(self.n_tokens), np.diff(self.indptr))
        order = np.argsort(self.concepts, kind="stable")
        return np.split(token[order], np.cumsum(self.positives())[:-1])

    def matrix(self) -> csr_array:
        """`[tokens, concepts]` of ones."""
        ones = np.ones(len(self.concepts), np.float32)
        return csr_array((ones, self.concepts, self.indptr), shape=(self.n_tokens, self.n_concepts))

    def by_document(self) -> NDArray[np.float64]:
        """On how many tokens of each document each concept holds. `[documents, concepts]`"""
        token = np.repeat(np.arange(self.n_tokens), np.diff(self.indptr))
        n_documents = int(self.document.max()) + 1
        flat = self.document[token] * self.n_concepts + self.concepts
        return np.bincount(flat, minlength=n_documents * self.n_concepts).reshape(n_documents, -1).astype(np.float64)

    def only(self, tokens: Integers) -> Held:
        """On these tokens, in this order."""
        lengths = np.diff(self.indptr)[tokens]
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        entries = np.arange(indptr[-1]) + np.repeat(self.indptr[tokens] - indptr[:-1], lengths)
        return Held(indptr, self.concepts[entries], self.n_concepts, self.document[tokens])

    def of(self, places: Integers) -> Held:
        """Only these concepts, ascending, numbered anew."""
        new = np.full(self.n_concepts, -1)
        new[places] = np.arange(len(places))
        here = new[self.concepts] >= 0
        before = np.concatenate([[0], np.cumsum(here)])
        concepts = new[self.concepts[here]].astype(np.int32)
        return Held(before[self.indptr], concepts, len(places), self.document)

    def permuted(self, length: int, seed: int) -> Held:
        """Every sequence gets what holds in another one, place for place: how common a concept is stays, and where in a
        sequence; what it has to do with the text is gone."""
        n = self.n_tokens // length
        order = np.random.default_rng([seed, n]).permutation(n)
        moved = self.only((order[:, None] * length + np.arange(length)).reshape(-1))
        return replace(moved, document=self.document)


@dataclass(frozen=True)
class Asked:
    """The concepts that are asked about (see `Wanted`), on both splits. `left_out` counts the others."""

    concepts: tuple[Concept, ...]
    dev: Held
    eval: Held
    left_out: int

    def kinds(self) -> dict[str, Integers]:
        """The places of the concepts of each kind, in order of first appearance."""
        found: dict[str, list[int]] = {}
        for place, concept in enumerate(self.concepts):
            found.setdefault(concept.kind, []).append(place)
        return {kind: np.array(places) for kind, places in found.items()}

    def only(self, dev: Integers, evaluation: Integers) -> Asked:
        """On these tokens of either split."""
        return replace(self, dev=self.dev.only(dev), eval=self.eval.only(evaluation))

    def telling(self, dev: Integers, evaluation: Integers, least: int) -> Asked:
        """Without the concepts that hold on nearly all of these tokens: a domain that is the only one holds on all."""
        there = self.only(dev, evaluation)
        places = np.flatnonzero(
            (there.dev.positives() <= len(dev) - least) & (there.eval.positives() <= len(evaluation) - least)
        )
        return Asked(
            tuple(self.concepts[place] for place in places), self.dev.of(places), self.eval.of(places),
            self.left_out + len(self.concepts) - len(places),
        )  # fmt: skip

    def permuted(self, length: int, seed: int) -> Asked:
        return Asked(
            self.concepts, self.dev.permuted(length, seed), self.eval.permuted(length, seed + 1), self.left_out
        )


@dataclass(frozen=True)
class Wanted:
    """Which concepts are asked about: those that hold on `least` tokens and in `documents` documents of either split,
    and not on nearly all (the complement of what is rare is no concept); of those at most `most`, drawn with `seed`,
    equally many of every kind as far as it has them."""

    least: int
    documents: int
    most: int
    seed: int


def asked(dev: Labels, evaluation: Labels, dev_document: Integers, document: Integers, wanted: Wanted) -> Asked:
    """documents: of every token of either split, numbered from 0."""
    keep = np.ones(len(dev.concepts), bool)
    for labels, of_token in ((dev, dev_document), (evaluation, document)):
        everything = Held(labels.indptr, labels.held, len(labels.concepts), of_token)
        positives = everything.positives()
        keep &= (positives >= wanted.least) & (positives <= labels.n_tokens - wanted.least)
        keep &= (everything.by_document() > 0).sum(0) >= wanted.documents
    kept = _at_most(np.flatnonzero(keep), dev.concepts, wanted)
    return Asked(
        concepts=tuple(dev.concepts[place] for place in kept),
        dev=_only(dev, kept, dev_document),
        eval=_only(evaluation, kept, document),
        left_out=len(dev.concepts) - len(kept),
    )


def _at_most(kept: Integers, concepts: Sequence[Concept], wanted: Wanted) -> Integers:
    of_kind: dict[str, list[int]] = {}
    for place in np.random.default_rng(wanted.seed).permutation(kept).tolist():
        of_kind.setdefault(concepts[place].kind, []).append(place)
    rounds = itertools.zip_longest(*of_kind.values())  # one of every kind, again and again
    drawn = [place for each in rounds for place in each if place is not None]
    return np.sort(np.array(drawn[: wanted.most], dtype=np.int64))


def _only(labels: Labels, kept: Integers, document: Integers) -> Held:
    new = np.full(len(labels.concepts), -1)
    new[kept] = np.arange(len(kept))
    concepts = new[labels.held]
    here = concepts >= 0
    before = np.concatenate([[0], np.cumsum(here)])
    return Held(before[labels.indptr], concepts[here].astype(np.int32), len(kept), document)


def numbered(documents: Sequence[int] | NDArray[np.integer]) -> Integers:
    """Documents' ids as numbers from 0, in the order of the ids."""
    return np.unique(np.asarray(documents), return_inverse=True)[1]
