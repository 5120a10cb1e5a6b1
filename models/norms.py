"""What any norm does to a vector: its gain, whether it centres, and the scale at a place.

Other people's norms are classes of their own, some with a gain of 1 + weight, some without parameters. So they are not
known by name: vectors of mean 0 and variance 1 are passed through, which every RMS norm and layer norm scales alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Norm:
    """y = gain · scale(x) · (x, less its mean where `centred`) + bias. gain, bias `[d]`; all in float32 at least."""

    gain: Tensor
    bias: Tensor
    centred: bool
    eps: float

    def scale(self, x: Tensor) -> Tensor:
        """`[..., 1]` for x `[..., d]`."""
        return torch.rsqrt(self._moved(x).square().mean(-1, keepdim=True) + self.eps)

    def direction(self, write: Tensor) -> Tensor:
        """What `write` `[..., d]` is in y but for the scale."""
        return self._moved(write) * self.gain

    def still(self, change: Tensor, x: Tensor) -> Tensor:
        """What a `change` of x does to y with the scale kept at x's, both `[..., d]`. Linear in the change."""
        return self._moved(change) * self.scale(x) * self.gain

    def _moved(self, x: Tensor) -> Tensor:
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        return x - x.mean(-1, keepdim=True) if self.centred else x


@torch.no_grad()
def norm_of(module: nn.Module, width: int) -> Norm:
    """Reads a norm over `width` (an even number) features. Raises ValueError where the module is no such norm."""
    eps = next((getattr(module, name) for name in ("eps", "variance_epsilon") if hasattr(module, name)), 1e-5)
    first = next(module.parameters(), None)
    device = first.device if first is not None else None
    dtype = first.dtype if first is not None else torch.float32
    eps = torch.finfo(dtype).eps if eps is None else float(cast(float, eps))
    signs = torch.ones(width, device=device, dtype=dtype)
    signs[1::2] = -1.0

    def out(x: Tensor) -> Tensor:
        y = module(x[None].to(dtype))[0]
        return y.to(torch.promote_types(dtype, torch.float32))

    up, down = out(signs), out(-signs)
    gain, bias = (up - down) / 2 * signs * (1 + eps) ** 0.5, (up + down) / 2
    centred = bool(torch.allclose(out(signs + 1), up, atol=1e-4, rtol=1e-3))
    found = Norm(gain, bias, centred, eps)
    # Two more vectors: whatever else the module does shows here.
    for x in (torch.linspace(-1, 2, width, device=device), torch.linspace(3, -5, width, device=device).sin()):
        wanted = (found.still(x, x) + bias).to(gain.dtype)
        near = 1e-3 if dtype in (torch.float32, torch.float64) else 3e-2
        if not torch.allclose(out(x), wanted, atol=near, rtol=near):
            raise ValueError(f"{type(module).__name__} is no RMS norm and no layer norm")
    return found
