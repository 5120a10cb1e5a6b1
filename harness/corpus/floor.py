"""What no reader can do better than, where a corpus knows its own probabilities (the planted language, Othello)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from harness.corpus import Document
from harness.corpus.config import CorpusConfig
from harness.corpus.labels import begun, runs
from harness.corpus.stored import PackedSplit


def log_probabilities(
    config: CorpusConfig, split: PackedSplit, document: Callable[[int], Document], sequences: int
) -> NDArray[np.float64] | None:
    """ln P(token | the document so far), 0 for the end of text, which no sequence has to guess or which is certain.
    `[sequences, length]`; None where nobody knows it.

    NaN where the document so far began before the sequence: who reads the sequence has not seen it all, so what P says
    there is out of reach. The end of a document that was cut is out of reach too.
    """
    documents = split.column("document")[:sequences]
    n_bytes = split.column("n_bytes")[:sequences].reshape(-1).astype(np.int64)
    found = np.zeros(len(n_bytes))
    for row, start, stop in runs(documents.reshape(-1)):
        known = config.log_probabilities(document(row).text)
        if known is None:
            return None
        total = np.concatenate([[0.0], np.cumsum(known)])
        ends = np.cumsum(n_bytes[start:stop])
        found[start:stop] = total[ends] - total[ends - n_bytes[start:stop]]
    seen = begun(documents)
    seen[:, 1:] = seen[:, :-1].copy()  # what was read before a token is the document that the token before is of
    return np.where(seen, found.reshape(documents.shape), np.nan)
