"""Ground truth of the sparse dictionary in plain torch: gather, then multiply. Forms entries × d."""

from __future__ import annotations

import torch
from torch import Tensor


def entries(x: Tensor, w_enc: Tensor, b_enc: Tensor, indptr: Tensor, units: Tensor) -> Tensor:
    """Pre-activations at the selected entries only: `[entries]`."""
    token = _tokens(indptr, units)
    columns = w_enc.t().index_select(0, units)
    return (x.index_select(0, token) * columns).sum(1) + b_enc.index_select(0, units)


def decode_rows(indptr: Tensor, units: Tensor, values: Tensor, w_dec: Tensor) -> Tensor:
    out = values.new_zeros(indptr.numel() - 1, w_dec.shape[1])
    return out.index_add(0, _tokens(indptr, units), values[:, None] * w_dec.index_select(0, units))


def _tokens(indptr: Tensor, units: Tensor) -> Tensor:
    return torch.repeat_interleave(indptr.diff(), output_size=units.numel())
