"""A dictionary of a model whose writes TransformerLens had centred, read on the same model as it is.

In a model whose norms are LayerNorms nobody reads a token's mean over the dimensions of the residual stream.
TransformerLens takes it out of everything that is written, and what a dictionary has learnt there is x less its mean.
So that is what it is given, and the mean goes by unread.
"""

from __future__ import annotations

import json
from pathlib import Path

from torch import Tensor

from kernels.codes import Codes
from saes.dictionary import CONFIG_FILE, Dictionary

MARK = "reads_centred"  # in the metadata of cfg.json


class Centred(Dictionary):
    """Codes and writes of `inner` on x less its mean; the mean is part of the rest, so that the error is the same."""

    def __init__(self, inner: Dictionary) -> None:
        super().__init__()
        self.inner = inner
        self.n_units, self.d_in, self.d_out, self.W_dec = inner.n_units, inner.d_in, inner.d_out, inner.W_dec
        self.metadata = getattr(inner, "metadata", {})

    def read(self, x: Tensor, rows: Tensor) -> Codes:
        return self.inner.read(x - _mean(x), rows)

    def write(self, codes: Codes, x: Tensor) -> Tensor:
        return self.inner.write(codes, x - _mean(x))

    def rest(self, x: Tensor) -> Tensor:
        mean = _mean(x)
        return self.inner.rest(x - mean) + mean

    def writes(self, codes: Codes, x: Tensor, entries: Tensor) -> Tensor:
        return self.inner.writes(codes, x - _mean(x), entries)

    def strengths(self, codes: Codes, x: Tensor) -> Tensor:
        return self.inner.strengths(codes, x - _mean(x))

    def save(self, folder: Path) -> None:
        """As the dictionary within, marked. SAELens reads it as it was before: on the centred model."""
        self.inner.save(folder)
        path = folder / CONFIG_FILE
        config = json.loads(path.read_text())
        config["metadata"] = {**(config.get("metadata") or {}), MARK: True}
        path.write_text(json.dumps(config, indent=1))

    def active_parameters(self, k: float) -> int:
        return self.inner.active_parameters(k)

    def flops_per_token(self, k: float) -> float:
        return self.inner.flops_per_token(k)


def _mean(x: Tensor) -> Tensor:
    return x.mean(dim=1, keepdim=True)
