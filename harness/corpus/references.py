"""What counting reaches: n-gram models of the same training tokens, as reference rows of the table.

Each gives the natural-log probability of every token of the evaluation split, `[sequences, length]` float64, aligned
with the packed sequences. Contexts are the preceding tokens of the split's stream, as packed: like a subject's they
run across document boundaries (through the end-of-text token), and, unlike a subject's, also across the edges of
sequences, which favours the reference a little. Only the first tokens of a split lack part of their context.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.base.errors import BadInput

if TYPE_CHECKING:
    from harness.corpus import Corpus

Tokens = NDArray[np.integer]
Floats = NDArray[np.float64]

_EM_STEPS = 100


def log_probabilities(name: str, corpus: Corpus) -> Floats:
    """Of every token of `corpus.eval` under reference `name`, in nats. `[sequences, length]`"""
    if name not in REFERENCES:
        raise BadInput(f"no reference {name!r}; there are: {', '.join(REFERENCES)}")
    train, dev, evaluation = (split.column("input_ids") for split in (corpus.train, corpus.dev, corpus.eval))
    return np.log(REFERENCES[name](train, dev, evaluation, corpus.info.vocab_size))


def unigram(train: Tokens, dev: Tokens, evaluation: Tokens, vocab_size: int) -> Floats:
    """(c(w) + 1) / (N + V). Probabilities, in the shape of `evaluation`. `dev` is not used."""
    return _unigram(train, vocab_size)[evaluation]


def bigram(train: Tokens, dev: Tokens, evaluation: Tokens, vocab_size: int) -> Floats:
    """λ c(vw)/c(v) + (1 − λ) p_unigram(w); after a v that training does not have, p_unigram(w).

    λ depends on c(v), one for each power of two, and is chosen on dev by expectation maximisation (Jelinek and Mercer
    1980), one success and one failure added, so that it is 1/2 where dev has no v of that count.
    """
    single = _unigram(train, vocab_size)

    def counted(scored: Tokens) -> tuple[Floats, Floats, NDArray[np.int64]]:
        """c(vw)/c(v), p_unigram(w) and ⌈log₂(1 + c(v))⌉ (0: unknown) at every token of `scored`."""
        grams = _orders(2, train, scored, vocab_size)[-1]
        counts = grams.raw_counts()
        total = np.bincount(grams.context_of, weights=counts, minlength=grams.n_contexts)[grams.context_at]
        bucket = np.ceil(np.log2(1 + total)).astype(np.int64)
        return counts[grams.gram_at] / np.maximum(total, 1), single[scored.reshape(-1)], bucket

    ratio, back, bucket = counted(dev)
    weights = np.full(65, 0.5)
    seen = np.bincount(bucket, minlength=65)
    for _ in range(_EM_STEPS):
        mixed = weights[bucket] * ratio
        share = mixed / (mixed + (1 - weights[bucket]) * back)
        weights = (np.bincount(bucket, weights=share, minlength=65) + 1) / (seen + 2)  # never 0 or 1
    weights[0] = 0
    ratio, back, bucket = counted(evaluation)
    return (weights[bucket] * ratio + (1 - weights[bucket]) * back).reshape(evaluation.shape)


def kneser_ney(train: Tokens, dev: Tokens, evaluation: Tokens, vocab_size: int, order: int = 5) -> Floats:
    """Interpolated modified Kneser–Ney (Chen and Goodman 1998, TR-10-98, equations 26 and following).

    p(w|h) = max(c(hw) − D(c(hw)), 0)/c(h) + γ(h) p(w|h′), h′ being h without its first token; c counts occurrences at
    the highest order and distinct left neighbours below it; D has three values an order, from the counts of counts;
    below the unigrams lies 1/V. After an h that training does not have, p(w|h′). Sums to 1 over the vocabulary.
    `dev` is not used: nothing is tuned.
    """
    probability = np.full(evaluation.size, 1 / vocab_size)
    orders = _orders(order, train, evaluation, vocab_size)
    for grams, higher in zip(orders, [*orders[1:], None], strict=True):
        counts = grams.raw_counts() if higher is None else grams.left_neighbours(higher)
        discounts = _discounts(counts)[np.minimum(counts, 3)]  # [grams]
        total = np.bincount(grams.context_of, weights=counts, minlength=grams.n_contexts)  # [contexts]
        freed = np.bincount(grams.context_of, weights=discounts, minlength=grams.n_contexts)
        gram, context = grams.gram_at, grams.context_at
        kept = counts[gram] - discounts[gram]
        mixed = (kept + freed[context] * probability) / np.maximum(total[context], 1)
        probability = np.where(total[context] > 0, mixed, probability)
    return probability.reshape(evaluation.shape)


FLOOR = "floor"  # what a corpus knows of itself, see floor.py

REFERENCES: dict[str, Callable[[Tokens, Tokens, Tokens, int], Floats]] = {
    "unigram": unigram,
    "bigram": bigram,
    "kneser_ney": kneser_ney,
}


def _unigram(train: Tokens, vocab_size: int) -> Floats:
    counts = np.bincount(train.reshape(-1), minlength=vocab_size)
    return (counts + 1) / (counts.sum() + vocab_size)


class _Grams:
    """The n-grams of training and of what is scored, numbered together: counting is `bincount`, looking up indexing.

    `context_of[g]`: number of gram g's first n − 1 tokens; `gram_at`, `context_at` `[scored tokens]`: the gram that
    ends at a token, and its context. Numbers are made from those of the order below, so no key exceeds
    grams × vocabulary, whatever n is.
    """

    def __init__(self, lower: _Grams | None, tokens: NDArray[np.int64], n_train: int, vocab_size: int) -> None:
        context = np.zeros(len(tokens), dtype=np.int64)
        if lower is not None:
            context[1:] = lower._ending[:-1] + 1
            context[n_train] = 0  # nothing precedes the first token of either stream
        _, self._first, self._ending = np.unique(context * vocab_size + tokens, return_index=True, return_inverse=True)
        self._n_train = n_train
        self.n_contexts = int(context.max()) + 1
        self.context_of = context[self._first]
        self.gram_at, self.context_at = self._ending[n_train:], context[n_train:]

    def raw_counts(self) -> NDArray[np.int64]:
        """How often each gram occurs in training. `[grams]`"""
        return np.bincount(self._ending[: self._n_train], minlength=len(self._first))

    def left_neighbours(self, higher: _Grams) -> NDArray[np.int64]:
        """How many distinct tokens precede each gram in training: distinct grams of the next order that end in it."""
        in_training = higher._first[higher._first < self._n_train]
        return np.bincount(self._ending[in_training], minlength=len(self._first))


def _orders(n: int, train: Tokens, scored: Tokens, vocab_size: int) -> list[_Grams]:
    """The grams of order 1 to n."""
    tokens = np.concatenate([train.reshape(-1), scored.reshape(-1)]).astype(np.int64)
    found: list[_Grams] = []
    for _ in range(n):
        found.append(_Grams(found[-1] if found else None, tokens, train.size, vocab_size))
    return found


def _discounts(counts: NDArray[np.int64]) -> Floats:
    """What is taken from counts 0 (nothing), 1, 2, and 3 or more. `[4]`

    Where a count of counts that the formula divides by or needs is zero (tiny data), 0.75 for all three: our choice.
    """
    n = np.bincount(np.minimum(counts, 5), minlength=6).astype(np.float64)
    if n[1:5].min() == 0:
        return np.array([0.0, 0.75, 0.75, 0.75])
    y = n[1] / (n[1] + 2 * n[2])
    found = np.array([0.0, 1 - 2 * y * n[2] / n[1], 2 - 3 * y * n[3] / n[2], 3 - 4 * y * n[4] / n[3]])
    return np.clip(found, 0, [0, 1, 2, 3])
