"""Holding a unit at a value wherever it is read: how a person steers, and what steering is measured by."""

from __future__ import annotations

from collections.abc import Callable

import torch

from kernels.codes import Codes


def clamped(unit: int, value: float) -> Callable[[Codes], Codes]:
    """An edit for `System.running`: the unit has `value` on every token, silent or not; 0 takes it away."""

    def edit(codes: Codes) -> Codes:
        others = codes.keep(codes.units != unit)
        if value == 0:
            return others
        n = others.n_tokens
        token = torch.cat([others.token_of_entry(), torch.arange(n, device=others.units.device)])
        units = torch.cat([others.units, others.units.new_full((n,), unit)])
        values = torch.cat([others.values, others.values.new_full((n,), value)])
        order = (token * others.n_units + units).argsort()
        indptr = others.indptr + torch.arange(n + 1, device=others.indptr.device)
        return Codes(indptr, units[order], values[order], others.rows, others.n_units)

    return edit
