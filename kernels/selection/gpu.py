"""Selection on GPU: torch's own top-k on packed integers, so that ties are settled and runs repeat."""

from __future__ import annotations

import torch
from torch import Tensor


def pack(a: Tensor) -> Tensor:
    """int64 that order like the floats of `a`, and among equals by lower index along the last dimension."""
    plain = torch.where(a.isnan(), torch.nan, a.float() + 0.0)  # NaN of one sign, the largest; + 0: −0 becomes 0
    bits = plain.view(torch.int32)
    keys = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (keys.long() << 32) | (0xFFFFFFFF - torch.arange(a.shape[-1], device=a.device))


def topk(a: Tensor, k: int) -> tuple[Tensor, Tensor]:
    indices = 0xFFFFFFFF - (pack(a).topk(k, dim=1).values & 0xFFFFFFFF)
    return a.gather(1, indices), indices


def batch_topk(a: Tensor, m: int) -> tuple[Tensor, Tensor, Tensor]:
    _, chosen = topk(a.reshape(1, -1), m)
    return _compress(a, chosen[0].sort().values)


def column_topk(a: Tensor, m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    _, ranked = topk(a.t().contiguous(), int(m.max()) if m.numel() else 0)
    wanted = torch.arange(ranked.shape[1], device=a.device) < m[:, None]
    columns = wanted.nonzero()[:, 0]
    flat = ranked[wanted] * a.shape[1] + columns
    return _compress(a, flat.sort().values)


def _compress(a: Tensor, flat: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    row = flat // a.shape[1]
    lengths = torch.bincount(row, minlength=a.shape[0])
    indptr = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    return indptr, flat % a.shape[1], a.reshape(-1)[flat]
