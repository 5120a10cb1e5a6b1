"""The text that codes are stored for: what a token is, which window stands around it, where it comes from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from harness.base.errors import HarnessError
from harness.corpus.tokenizer import shown
from harness.systems.evaluation import Evaluation


@dataclass(frozen=True)
class CodedText:
    """All arrays `[tokens]`, in the order of the codes.

    counted: tokens of text; the end-of-text token that begins a document is none. low, high: the window around a token,
    cut at the ends of its document and sequence, without that token. domain: index into `domains`; both empty where
    documents are not known. shown: every token that occurs, as a person can tell it from others.

    Not autointerp's Text: that halves the documents, so it needs two.
    """

    ids: np.ndarray
    document: np.ndarray
    counted: np.ndarray
    low: np.ndarray
    high: np.ndarray
    domain: np.ndarray
    domains: tuple[str, ...]
    shown: dict[int, str]

    def __len__(self) -> int:
        return len(self.ids)

    @staticmethod
    def of(evaluation: Evaluation, before: int, after: int) -> CodedText:
        if evaluation.tokenizer is None:
            raise HarnessError("reports of units show text, and this evaluation has no tokenizer")
        batches = list(evaluation.batches(evaluation.codes_sequences))
        ids = torch.cat([batch.input_ids for batch in batches]).cpu()  # [sequences, length]
        document = torch.cat([batch.document for batch in batches]).cpu().numpy().reshape(-1)
        sequence = np.repeat(np.arange(len(ids)), ids.shape[1])
        counted = evaluation.counted(ids).numpy().reshape(-1)
        flat, here = ids.numpy().reshape(-1), np.arange(ids.numel())
        opens = np.flatnonzero(np.diff(document, prepend=-1) | np.diff(sequence, prepend=-1))
        ends = np.append(opens[1:], len(flat))
        run = np.cumsum(np.bincount(opens, minlength=len(flat))) - 1
        first = np.minimum((opens + ~counted[opens])[run], here)
        domain, domains = _domains(evaluation, document)
        return CodedText(
            flat,
            document,
            counted,
            np.maximum(here - before, first),
            np.minimum(here + after + 1, ends[run]),
            domain,
            domains,
            {int(index): shown(evaluation.tokenizer, int(index)) for index in np.unique(flat)},
        )


def _domains(evaluation: Evaluation, document: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    if evaluation.document is None:
        return np.zeros(0, int), ()
    rows, place = np.unique(document, return_inverse=True)
    names = [evaluation.document(int(row)).domain for row in rows]
    domains = sorted(set(names))
    return np.array([domains.index(name) for name in names])[place], tuple(domains)
