"""The stored codes turned on their side: for every unit the tokens that it fires on, with the text around them."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from harness.base.errors import HarnessError
from harness.corpus.tokenizer import shown
from harness.systems.evaluation import Evaluation
from harness.systems.system import Encoded


@dataclass(frozen=True)
class Text:
    """The tokens that codes are stored for, in their order. All arrays `[tokens]`.

    pieces: every token decoded. low, high: the window around a token, cut at the ends of its document and sequence.
    explains: whether the token's document is one of those that units are explained on; the others are for scoring.
    """

    ids: np.ndarray
    pieces: np.ndarray
    document: np.ndarray
    low: np.ndarray
    high: np.ndarray
    explains: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    @staticmethod
    def of(evaluation: Evaluation, before: int, after: int, generator: np.random.Generator) -> Text:
        """Raises HarnessError where there is one document only: explaining and scoring need different ones."""
        if evaluation.tokenizer is None:
            raise HarnessError("auto-interpretation shows text, and this evaluation has no tokenizer")
        batches = list(evaluation.batches(evaluation.codes_sequences))
        ids = torch.cat([batch.input_ids for batch in batches]).cpu().numpy()  # [sequences, length]
        document = torch.cat([batch.document for batch in batches]).cpu().numpy()
        sequence = np.repeat(np.arange(len(ids)), ids.shape[1])
        flat = document.reshape(-1)
        opens = np.flatnonzero(np.diff(flat, prepend=-1) | np.diff(sequence, prepend=-1))
        ends = np.append(opens[1:], len(flat))
        run = np.cumsum(np.bincount(opens, minlength=len(flat))) - 1
        here = np.arange(len(flat))
        known = {int(index): shown(evaluation.tokenizer, int(index)) for index in np.unique(ids)}
        pieces = np.empty(len(flat), object)
        pieces[:] = [known[index] for index in ids.reshape(-1).tolist()]
        return Text(
            ids.reshape(-1),
            pieces,
            flat,
            np.maximum(here - before, opens[run]),
            np.minimum(here + after + 1, ends[run]),
            np.isin(flat, explaining_documents(flat, generator)),
        )


def explaining_documents(document: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Half of the documents, by tokens about: drawn in random order, each put on the side that has fewer tokens."""
    ids, sizes = np.unique(document, return_counts=True)
    if len(ids) < 2:
        raise HarnessError("auto-interpretation needs at least 2 documents among those with stored codes, this has 1")
    chosen, explain, score = [], 0, 0
    for index in generator.permutation(len(ids)):
        if explain <= score:
            chosen.append(ids[index])
            explain += sizes[index]
        else:
            score += sizes[index]
    return np.array(chosen)


@dataclass(frozen=True)
class Firings:
    """Who fires where, at one site: by unit, and by token.

    units: those that fire at all, in an order that follows from where they fire and not from their numbers, so that
    numbering the units otherwise changes nothing. Column c stands for units[c]: it fires on tokens[starts[c]:
    starts[c + 1]], ascending, with these strengths.
    """

    site: str
    n_units: int
    n_tokens: int
    units: np.ndarray
    starts: np.ndarray
    tokens: np.ndarray
    strengths: np.ndarray

    @staticmethod
    def of(site: str, encoded: Encoded, strongest: int) -> Firings:
        """A unit fires on a token where it is among its `strongest` units: a gelu neuron never falls silent, and this
        reads it at the same L0 as everything else."""
        codes = encoded.codes
        kept = encoded.strongest(strongest)
        token, unit = codes.token_of_entry()[kept].numpy(), codes.units[kept].numpy()
        order = np.argsort(unit, kind="stable")  # tokens ascend within a unit
        unit, token, strength = unit[order], token[order], encoded.strengths[kept].float().numpy()[order]
        units, starts = np.unique(unit, return_index=True)
        bounds = np.append(starts, len(unit))  # nothing may fire at all
        pieces = list(itertools.pairwise(bounds))
        keys = [hashlib.sha256(token[a:b].tobytes() + strength[a:b].tobytes()).digest() for a, b in pieces]
        ranked = sorted(range(len(units)), key=keys.__getitem__)
        lengths = np.array([pieces[i][1] - pieces[i][0] for i in ranked], int)
        entries = np.concatenate([np.arange(*pieces[i]) for i in ranked]) if ranked else np.zeros(0, int)
        return Firings(
            site,
            codes.n_units,
            codes.n_tokens,
            units[ranked],
            np.concatenate([[0], np.cumsum(lengths)]),
            token[entries],
            strength[entries],
        )

    @property
    def counts(self) -> np.ndarray:
        """Tokens that each column fires on. `[columns]`"""
        return np.diff(self.starts)

    def of_column(self, column: int) -> tuple[np.ndarray, np.ndarray]:
        """Tokens (ascending) and strengths, `[firings]` both."""
        where = slice(self.starts[column], self.starts[column + 1])
        return self.tokens[where], self.strengths[where]

    def generator(self, column: int, seed: int) -> np.random.Generator:
        """For what is drawn for one unit: decided by the seed and by where the unit fires."""
        tokens, strengths = self.of_column(column)
        key = hashlib.sha256(tokens.tobytes() + strengths.tobytes()).digest()[:8]
        return np.random.default_rng([seed, int.from_bytes(key, "big")])

    @cached_property
    def _by_token(self) -> tuple[np.ndarray, np.ndarray]:
        order = np.argsort(self.tokens, kind="stable")
        columns = np.repeat(np.arange(len(self.units)), self.counts)[order]
        return np.searchsorted(self.tokens[order], np.arange(self.n_tokens + 1)), columns

    def together(self, column: int) -> np.ndarray:
        """On how many tokens each column fires together with this one. `[columns]`"""
        starts, columns = self._by_token
        tokens, _ = self.of_column(column)
        found = [columns[starts[token] : starts[token + 1]] for token in tokens]
        return np.bincount(np.concatenate(found), minlength=len(self.units))
