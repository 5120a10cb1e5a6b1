"""Activity in few steps, token by token: what a search over pairs of units counts in.

A detector's active tokens, the strongest first, are cut into at most `LEVELS` steps whose sizes grow geometrically:
concepts are rare, so thresholds lie close together where few tokens reach them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array

from harness.metrics.concepts.activity import Activity, Floats, Integers
from kernels.threads import jit, parallel

LEVELS = 32
FIRST = 4  # tokens of the strongest step


@dataclass(frozen=True)
class Levels:
    """By token (CSR): indptr `[tokens + 1]`, detectors `[nnz]` int32, level `[nnz]` uint8, 0 the strongest. cuts
    `[detectors, LEVELS]` float32: the least value of a level; equal from the last one on, infinite where a detector is
    silent. tokens `[detectors, LEVELS]`: how many have a level."""

    indptr: Integers
    detectors: NDArray[np.int32]
    level: NDArray[np.uint8]
    cuts: Floats
    tokens: NDArray[np.int32]


def levels(activity: Activity) -> Levels:
    detectors = len(activity.indptr) - 1
    cuts = np.full((detectors, LEVELS), np.inf, np.float32)
    level = np.zeros(len(activity.tokens), np.uint8)
    tokens = np.zeros((detectors, LEVELS), np.int32)
    parallel(_cut, detectors, activity.indptr, activity.values, cuts, level, tokens)
    # One more than the level, since a sparse array forgets zeros.
    by_detector = csc_array((level + 1, activity.tokens, activity.indptr), shape=(activity.n_tokens, detectors))
    by_token = by_detector.tocsr()
    stepped = (by_token.data - 1).astype(np.uint8)
    return Levels(by_token.indptr.astype(np.int64), by_token.indices.astype(np.int32), stepped, cuts, tokens)


@jit
def _cut(indptr, values, cuts, level, tokens, start, stop):
    """A level ends where its size is reached and the next value is another: equal values have one level."""
    for detector in range(start, stop):
        first, last = indptr[detector], indptr[detector + 1]
        if first == last:
            continue
        growth = max(1.0, ((last - first) / FIRST) ** (1 / (LEVELS - 1)))
        at, end = 0, float(FIRST)
        for entry in range(first, last):
            if at < LEVELS - 1 and entry - first >= end and values[entry] != values[entry - 1]:
                at += 1
                while end <= entry - first:
                    end *= growth
            level[entry] = at
            cuts[detector, at] = values[entry]
            tokens[detector, at] += 1
        cuts[detector, at + 1 :] = cuts[detector, at]
