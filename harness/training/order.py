"""In which order a subject sees its sequences."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import Dataset

from harness.training.objective import sequence

if TYPE_CHECKING:
    from harness.corpus import PackedSplit


class Sequences(Dataset):
    """`count` sequences, one after the other: every epoch takes all of the split in an order of its own, and the next
    begins where it ends, inside a batch too. So all batches are full, and as many tokens go through a model as its
    budget says, however few sequences there are. Orders depend on the seed and the epoch alone: subjects with other
    batches see the same text in the same order, and a resumed run knows where it was.
    """

    def __init__(self, split: PackedSplit, count: int, seed: int) -> None:
        self.split, self.count, self.seed = split, count, seed
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if not 0 <= index < self.count:
            raise IndexError(f"sequence {index} of {self.count}")
        epoch, within = divmod(index, len(self.split))
        if epoch != self._epoch:
            self._epoch, self._order = epoch, np.random.default_rng((self.seed, epoch)).permutation(len(self.split))
        ids = sequence(self.split, int(self._order[within]))
        return {"input_ids": ids, "labels": ids}
