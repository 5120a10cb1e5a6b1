"""Directions in place of units: what fires where projections compete, the control of whoever reads units."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kernels.codes import Codes

_TOKENS = 1 << 12  # projected at once


def competing(y: Tensor, directions: Tensor, counts: np.ndarray, *, signed: bool = False) -> Codes:
    """Codes of y `[tokens, d_model]`: on token t the `counts[t]` largest projections onto `directions`
    `[units, d_model]`, as far as they are positive; the largest by their size, of either sign, where `signed`."""
    most = min(int(counts.max(initial=0)), len(directions))
    units, values, lengths = [], [], []
    for start in range(0, len(y), _TOKENS):
        wanted = torch.as_tensor(counts[start : start + _TOKENS])
        projected = y[start : start + _TOKENS] @ directions.T
        top = (projected.abs() if signed else projected).topk(most, dim=1)
        fires = (torch.arange(most) < wanted[:, None]) & (top.values > 0)
        units.append(top.indices[fires])
        values.append(projected.gather(1, top.indices)[fires])
        lengths.append(fires.sum(1))
    indptr = torch.cat([torch.zeros(1, dtype=torch.long), torch.cat(lengths).cumsum(0)])
    rows = torch.zeros(len(y), 2, dtype=torch.long)
    return Codes(indptr, torch.cat(units), torch.cat(values), rows, len(directions))
