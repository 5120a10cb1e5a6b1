"""What a metric sees: a system, the evaluation split, the stored codes. Nothing of how the system was made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.systems.cost import Cost
from harness.systems.system import Encoded, Site, System
from kernels.codes import Codes

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from harness.corpus import Batch, Document, PackedSplit
    from harness.corpus.labels import Labels


@dataclass
class Evaluation:
    """One system on the evaluation split.

    sequences: how many evaluation sequences losses are computed on. codes_sequences: how many of them (the first) have
    stored codes. `load_codes(site)` reads what the codes stage stored. tokenizer: the corpus's; `document(row)` a
    document by its number in `documents`; None only in tests of metrics that show no text. `floor(sequences)`: ln P of
    every token of the first evaluation sequences `[sequences, length]`, NaN where no reader of the sequence can reach
    it (harness/corpus/floor.py), or None where the corpus does not know it.
    `load_labels("dev" | "eval")`: which concepts hold on the tokens that have codes, and on as many of dev; only for a
    metric that says that it reads them.
    """

    system: System
    split: PackedSplit
    dev: PackedSplit
    sequences: int
    codes_sequences: int
    batch_sequences: int
    resamples: int
    load_codes: Callable[[Site], Encoded]
    cost: Cost
    artifacts: Path = field(default_factory=Path)
    tokenizer: PreTrainedTokenizerFast | None = None
    document: Callable[[int], Document] | None = None
    floor: Callable[[int], NDArray[np.float64] | None] | None = None
    load_labels: Callable[[str], Labels] | None = None

    def batches(self, sequences: int | None = None, *, dev: bool = False) -> Iterator[Batch]:
        """The split in batches on the system's device, always in the same order and of the same size: losses move in
        the last digits with the batch size."""
        split = self.dev if dev else self.split
        total = min(sequences or self.sequences, len(split))
        for start in range(0, total, self.batch_sequences):
            indices = torch.arange(start, min(start + self.batch_sequences, total))
            yield split.batch(indices).to(self.system.device)

    @cached_property
    def documents(self) -> np.ndarray:
        """Ids of the documents in the evaluation sequences, ascending. `[documents]`"""
        found = [batch.document.unique() for batch in self.batches()]
        return torch.cat(found).unique().cpu().numpy()

    def counted(self, input_ids: Tensor) -> Tensor:
        """Which tokens units are counted on, in the shape of `input_ids`: every token of text, the first of a sequence
        too, but not the end-of-text token that begins each document.

        That token stands for no text, and a unit that fires on it alone would look alive and get its top contexts
        there. [U] Losses are taken on targets instead: every token but the first of a packed sequence; that a document
        ends counts there, with no bytes.
        """
        end = None if self.tokenizer is None else self.tokenizer.eos_token_id
        if not isinstance(end, int):
            return torch.ones_like(input_ids, dtype=torch.bool)
        return input_ids.ne(end)

    def counted_of_codes(self) -> Tensor:
        """`counted`, of every token that has stored codes, in the order of the codes. `[tokens]`"""
        return torch.cat([self.counted(b.input_ids).reshape(-1) for b in self.batches(self.codes_sequences)]).cpu()

    def sequences_read(self) -> int:
        """How many evaluation sequences losses are computed on: as many as were asked for, or all there are."""
        return min(self.sequences, len(self.split))

    def by_document(self, batch_document: Tensor, values: Tensor, sums: Tensor) -> None:
        """Adds `values` `[n, ...]` into `sums` `[documents, ...]` (float64) at the rows of their documents `[n]`."""
        ids = torch.as_tensor(self.documents, device=batch_document.device, dtype=batch_document.dtype)
        rows = torch.searchsorted(ids, batch_document)
        sums.index_add_(0, rows.to(sums.device), values.to(device=sums.device, dtype=torch.float64))

    def document_sums(self, *shape: int) -> Tensor:
        return torch.zeros(len(self.documents), *shape, dtype=torch.float64)

    def document_of_codes(self) -> Tensor:
        """Document id of every token that has stored codes, in the order of the codes. `[tokens]`"""
        return torch.cat([batch.document.reshape(-1) for batch in self.batches(self.codes_sequences)]).cpu()


def encode_split(evaluation: Evaluation, folder: Path, report: Callable[[float, float, str], None]) -> None:
    """The codes stage: reads the first `codes_sequences` through the system, one safetensors file a site. Tokens that
    do not count (`Evaluation.counted`) keep their place and lose their codes."""
    parts: dict[Site, list[Encoded]] = {site: [] for site in evaluation.system.sites}
    done, total = 0, min(evaluation.codes_sequences, len(evaluation.split))
    for batch in evaluation.batches(evaluation.codes_sequences):
        counted = evaluation.counted(batch.input_ids).reshape(-1)
        for site, encoded in evaluation.system.encode(batch.input_ids).items():
            rows = encoded.codes.rows.clone()
            rows[:, 0] += done  # which sequence of the split, not of the batch
            codes = Codes(encoded.codes.indptr, encoded.codes.units, encoded.codes.values, rows, encoded.codes.n_units)
            keep = counted[codes.token_of_entry()]
            # Not left on the device: a split's codes may be larger than its memory.
            parts[site].append(Encoded(codes.keep(keep).cpu(), encoded.strengths[keep].cpu()))
        done += len(batch.input_ids)
        report(done, total, "sequences")
    for site, pieces in parts.items():
        Codes.cat([piece.codes for piece in pieces]).save(
            folder / f"{site}.safetensors", strengths=torch.cat([piece.strengths for piece in pieces])
        )


def read_codes(folder: Path, site: Site) -> Encoded:
    codes, more = Codes.load(folder / f"{site}.safetensors")
    return Encoded(codes, more["strengths"])
