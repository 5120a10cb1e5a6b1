"""What counting words says of a concept already, with no model: the control for what is told by the words around.

Naive Bayes on the token itself and on bags of the tokens before it, near ones and far ones apart; how much each bag
counts is a logistic regression, since bags repeat themselves and plain naive Bayes is far too sure. [U: the bags]
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array

from harness.metrics.concepts.activity import Integers
from harness.metrics.concepts.probes import ProbeScores, newton, scored
from harness.metrics.concepts.tokens import Held

BAGS = ((0, 0), (1, 1), (2, 2), (3, 4), (5, 8), (9, 16), (17, 32))  # tokens back, from and to


def bag_of_tokens(
    ids_dev: Integers, dev: Held, ids: Integers, held: Held, length: int, tokens_dev: Integers, tokens: Integers
) -> ProbeScores:
    """ids `[all tokens of a split]`, in sequences of `length`; `dev` and `held` stand for those in `tokens`."""
    vocabulary = int(max(ids_dev.max(), ids.max())) + 1
    truth = dev.matrix()
    parts_dev, parts = [], []
    for back in BAGS:
        bag_dev, bag = (_bag(of, length, vocabulary, back)[at] for of, at in ((ids_dev, tokens_dev), (ids, tokens)))
        with_ = np.asarray((bag_dev.T @ truth).todense()) + 0.5  # [vocabulary, concepts]
        without = np.asarray(bag_dev.sum(0)).reshape(-1, 1) + 1.0 - with_
        weights = np.log(with_ / with_.sum(0)) - np.log(without / without.sum(0))
        parts_dev.append(bag_dev @ weights)
        parts.append(bag @ weights)
    x_dev, x = (np.stack(of, -1).astype(np.float64) for of in (parts_dev, parts))  # [tokens, concepts, bags]
    on_dev, on_eval = _weighed(x_dev, truth.toarray(), x)
    return scored(on_dev, dev, on_eval, held)


def _weighed(
    x_dev: NDArray[np.float64], truth: NDArray[np.float32], x: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    scores_dev, scores = np.empty(x_dev.shape[:2]), np.empty(x.shape[:2])
    for concept in range(x.shape[1]):
        scale = np.maximum(x_dev[:, concept].std(0), 1e-6)
        inputs = torch.from_numpy(x_dev[:, concept] / scale)
        weights = newton(inputs, torch.from_numpy(truth[:, concept]).double()).numpy()[:-1] / scale
        scores_dev[:, concept], scores[:, concept] = x_dev[:, concept] @ weights, x[:, concept] @ weights
    return scores_dev, scores


def _bag(ids: Integers, length: int, vocabulary: int, back: tuple[int, int]) -> csr_array:
    """How often each token occurs between so many tokens back, in the same sequence. `[tokens, vocabulary]`"""
    place = np.arange(len(ids))
    rows = [place[place % length >= distance] for distance in range(back[0], back[1] + 1)]
    columns = [ids[near - distance] for distance, near in zip(range(back[0], back[1] + 1), rows, strict=True)]
    row, column = np.concatenate(rows), np.concatenate(columns)
    return csr_array((np.ones(len(row), np.float32), (row, column)), shape=(len(ids), vocabulary))
