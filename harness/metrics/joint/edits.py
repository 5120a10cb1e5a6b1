"""Runs a subject with units edited at one position, many contexts and edits in one forward pass.

What is read is the distribution of the next token at the edited position. Positions before it do not see the edit, so
one native pass over the sequence gives their keys and values, and every edited variant is a single token that attends
to those and to itself: exact, and as many variants as one likes run side by side as tokens of one batch (test_edits.py
compares with the whole sequence run again for each edit).
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from harness.decomposition import Site, System
from kernels.codes import Codes, Edit


@dataclass(frozen=True)
class Entries:
    """What units are set to: row `[m]` (which variant of a pass), unit `[m]`, value `[m]`; 0 is off. Each (row, unit)
    stands once."""

    row: Tensor
    unit: Tensor
    value: Tensor


def set_entries(codes: Codes, entries: Entries) -> Codes:
    """`codes` with these (row, unit) at these values, whether they fired or not; valid codes: sorted, no zeros."""
    n = codes.n_units
    keys, new = codes.token_of_entry() * n + codes.units, entries.row * n + entries.unit
    place = torch.searchsorted(keys, new)
    fired = torch.zeros_like(new, dtype=torch.bool)
    inside = place < codes.nnz
    fired[inside] = keys[place[inside]] == new[inside]
    wanted = entries.value.to(codes.values.dtype)
    codes = codes.with_values(codes.values.index_put((place[fired],), wanted[fired]))
    added = ~fired & (entries.value != 0)
    if not bool(added.any()):
        return codes
    keys = torch.cat([codes.token_of_entry() * n + codes.units, new[added]])
    keys, order = keys.sort()
    values = torch.cat([codes.values, wanted[added]])[order]
    lengths = torch.bincount(keys // n, minlength=codes.n_tokens)
    indptr = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    return replace(codes, indptr=indptr, units=keys % n, values=values)


class Prefix:
    """One sequence as the subject runs it natively, to which edited variants of its positions are compared."""

    @torch.no_grad()
    def __init__(self, system: System, tokens: Tensor) -> None:
        """tokens `[length]`."""
        self.system, self.tokens = system, tokens
        run: Any = system.model(tokens[None], use_cache=True, logits_to_keep=1)
        self._cache = run.past_key_values

    @torch.no_grad()
    def logits(
        self,
        positions: Tensor,
        edits: Mapping[Site, Entries] | None = None,
        pushes: Mapping[Site, Tensor] | None = None,
        outputs: dict[Site, Tensor] | None = None,
    ) -> Tensor:
        """Logits of the next token `[variants, vocabulary]` after positions `[variants]` of this sequence.

        edits: what units are set to, in the rows of `positions`; gates, other codes of the site and a dictionary's
        error stay as they are, everything downstream runs. A unit at a later site that is set holds its value whatever
        an earlier edit would make of it; other units there respond. pushes: vectors `[variants, d_model]` added to a
        site's output. outputs: filled with every site's output `[variants, d_model]` after both.
        """
        length, n = len(self.tokens), len(positions)
        device = self.tokens.device
        model: Any = self.system.model
        # Row r sees the native prefix before its position, and itself.
        visible = torch.zeros(n, length + n, dtype=torch.bool, device=device)
        visible[:, :length] = torch.arange(length, device=device) < positions[:, None]
        visible[:, length:] = torch.eye(n, dtype=torch.bool, device=device)
        dtype = next(model.parameters()).dtype
        mask = torch.zeros(n, length + n, dtype=dtype, device=device).masked_fill_(~visible, torch.finfo(dtype).min)
        taps: dict[Site, Edit] = {
            site: partial(_set, entries) for site, entries in (edits or {}).items() if len(entries.row)
        }
        added = {site: partial(_push, push) for site, push in (pushes or {}).items()}
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.system.running(taps))
            stack.enter_context(self.system.replacing(added))
            if outputs is not None:
                stack.enter_context(self.system.watching(lambda site, _x, y: outputs.update({site: y[0]})))
            run = model(
                self.tokens[positions][None],
                position_ids=positions[None],
                attention_mask=mask[None, None],
                past_key_values=self._cache,
                use_cache=True,
            )
        cast(Any, self._cache).crop(-n)
        return run.logits[0]


def _set(entries: Entries, codes: Codes) -> Codes:
    return set_entries(codes, entries)


def _push(push: Tensor, output: Tensor) -> Tensor:
    return output + push.view_as(output).to(output.dtype)
