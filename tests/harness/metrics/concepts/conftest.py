"""Planted worlds of concepts: tokens on which it is known what holds, and units that are told to fire on it."""

from __future__ import annotations

import numpy as np
import torch

from harness.corpus.labels import Concept, Labels
from harness.metrics.concepts.activity import Activity, activity
from harness.metrics.concepts.tokens import Asked, Held, Wanted, asked
from kernels.codes import Codes


def held_of(truth: np.ndarray, documents: int = 10) -> Held:
    """From `[tokens, concepts]` bool; documents of equal length."""
    _, concept = truth.nonzero()
    indptr = np.concatenate([[0], np.cumsum(truth.sum(1))])
    return Held(indptr, concept.astype(np.int32), truth.shape[1], np.arange(len(truth)) * documents // len(truth))


def activity_of(values: np.ndarray) -> Activity:
    """From coefficients `[tokens, units]`; zeros are silent."""
    return activity([codes_of(values)])


def codes_of(values: np.ndarray) -> Codes:
    dense = torch.from_numpy(values.astype(np.float32))
    return Codes.from_dense(dense, torch.zeros(len(values), 2, dtype=torch.long))


def labels_of(truth: np.ndarray) -> Labels:
    _, concept = truth.nonzero()
    indptr = np.concatenate([[0], np.cumsum(truth.sum(1))])
    concepts = tuple(Concept(f"c{i}", "kind") for i in range(truth.shape[1]))
    return Labels(concepts, indptr, concept.astype(np.int32), np.ones(len(truth), bool))


def asked_of(dev: np.ndarray, evaluation: np.ndarray, least: int = 5) -> Asked:
    documents = np.arange(len(dev)) * 10 // len(dev), np.arange(len(evaluation)) * 10 // len(evaluation)
    return asked(labels_of(dev), labels_of(evaluation), *documents, Wanted(least, 2, 1000, 0))
