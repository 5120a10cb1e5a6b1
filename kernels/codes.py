"""Codes: which units fired on which token and how strongly; and the pair of functions that read and write them.

This is the one interface of the project. An expert layer, a dense MLP, a sparse autoencoder and a transcoder
all *read* codes from an input and *write* a sum over units back. Everything that measures or edits a system sees
only what is defined here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Codes:
    """Activations of `n_units` units on a batch of tokens, in compressed sparse rows.

    One entry per (token, unit): where several heads retrieve the same unit their coefficients are summed. Within a
    row units ascend. No entry is zero, so the number of entries of a row is the L0 of its token.

    Shapes: indptr `[tokens + 1]` int64; units `[nnz]` int64; values `[nnz]` floating, may require grad;
    rows `[tokens, 2]` int64, which sequence and which position each token is.
    """

    indptr: Tensor
    units: Tensor
    values: Tensor
    rows: Tensor
    n_units: int

    @property
    def n_tokens(self) -> int:
        return self.indptr.numel() - 1

    @property
    def nnz(self) -> int:
        return self.units.numel()

    def row_lengths(self) -> Tensor:
        """Number of active units of each token (L0). `[tokens]` int64."""
        return self.indptr.diff()

    def token_of_entry(self) -> Tensor:
        """Row index of every entry. `[nnz]` int64."""
        return torch.repeat_interleave(self.row_lengths(), output_size=self.nnz)

    def with_values(self, values: Tensor) -> Codes:
        """The same firing pattern with other coefficients. Zeros are dropped, so that L0 stays what it says."""
        kept = replace(self, values=values)
        return kept if bool((values != 0).all()) else kept.keep(values != 0)

    def keep(self, entries: Tensor) -> Codes:
        """Only the entries where the boolean mask `entries` `[nnz]` is true (ablation is dropping entries)."""
        kept_before = torch.cat([entries.new_zeros(1, dtype=torch.long), entries.cumsum(0)])
        return replace(self, indptr=kept_before[self.indptr], units=self.units[entries], values=self.values[entries])

    def cpu(self) -> Codes:
        """The same in main memory."""
        return Codes(self.indptr.cpu(), self.units.cpu(), self.values.cpu(), self.rows.cpu(), self.n_units)

    def dense(self) -> Tensor:
        """`[tokens, n_units]`. For small cases and tests: everything else stays sparse."""
        out = self.values.new_zeros(self.n_tokens, self.n_units)
        return out.index_put((self.token_of_entry(), self.units), self.values)

    @staticmethod
    def from_dense(activations: Tensor, rows: Tensor) -> Codes:
        """From `[tokens, n_units]`; exact zeros are silent units."""
        fired = activations != 0
        token, units = fired.nonzero(as_tuple=True)
        return Codes(_indptr(fired.sum(1)), units, activations[token, units], rows, activations.shape[1])

    @staticmethod
    def from_slots(units: Tensor, values: Tensor, rows: Tensor, n_units: int) -> Codes:
        """From a fixed number of slots per token, as top-k selections give them.

        units `[tokens, slots]` integer, values `[tokens, slots]`. Slots of one token naming the same unit are summed;
        slots (and sums) that are exactly zero are dropped. Differentiable in `values`.
        """
        slots = units.shape[1]
        ordered, order = units.long().sort(dim=1, stable=True)
        values = values.gather(1, order)
        opens = torch.ones_like(ordered, dtype=torch.bool)
        opens[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
        if slots and not bool(opens.all()):
            # Each run of equal units adds into the slot that opens it: index of the run, per token.
            run = opens.long().cumsum(1) - 1
            summed = torch.zeros_like(values).scatter_add(1, run, values)
            values = torch.where(opens, summed.gather(1, run), torch.zeros_like(values))
        fired = opens & (values != 0)
        return Codes(_indptr(fired.sum(1)), ordered[fired], values[fired], rows, n_units)

    @staticmethod
    def cat(parts: list[Codes]) -> Codes:
        """Codes of several batches, one after the other."""
        if not parts:
            raise ValueError("Codes.cat needs at least one part")
        offsets = torch.tensor([0, *[part.nnz for part in parts]]).cumsum(0).tolist()
        indptr = [part.indptr[:-1] + offset for part, offset in zip(parts, offsets, strict=False)]
        return Codes(
            torch.cat([*indptr, parts[0].indptr.new_tensor([offsets[-1]])]),
            torch.cat([part.units for part in parts]),
            torch.cat([part.values for part in parts]),
            torch.cat([part.rows for part in parts]),
            parts[0].n_units,
        )

    def save(self, path: Path, **more: Tensor) -> None:
        """Write as safetensors, with further per-entry or per-token tensors beside it (strengths, say)."""
        from safetensors.torch import save_file

        tensors = {
            "indptr": self.indptr,
            "units": self.units.to(torch.int32),
            "values": self.values.detach(),
            "rows": self.rows.to(torch.int32),
            **more,
        }
        save_file({k: v.contiguous() for k, v in tensors.items()}, path, metadata={"n_units": str(self.n_units)})

    @staticmethod
    def load(path: Path) -> tuple[Codes, dict[str, Tensor]]:
        """What `save` wrote: the codes and the further tensors by name."""
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            n_units = int(file.metadata()["n_units"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        codes = Codes(
            tensors.pop("indptr"),
            tensors.pop("units").long(),
            tensors.pop("values"),
            tensors.pop("rows").long(),
            n_units,
        )
        return codes, tensors


Edit = Callable[[Codes], Codes]


class ReadWrite(Protocol):
    """A pair of functions at a site: which units fire and how strongly, and what they put into the residual stream.

    `x` is `[tokens, d_model]` throughout. The layer (or the grafted dictionary) computes
    `write(read(x, rows), x) + rest(x)`.
    """

    n_units: int

    def read(self, x: Tensor, rows: Tensor) -> Codes:
        """Codes of the tokens `x`; `rows` `[tokens, 2]` is passed through into them."""
        ...

    def write(self, codes: Codes, x: Tensor) -> Tensor:
        """`[tokens, d_model]`: the sum over units of coefficient times what the unit writes. Linear in codes.values."""
        ...

    def rest(self, x: Tensor) -> Tensor:
        """`[tokens, d_model]`: what no unit owns (biases, a side MLP, a skip)."""
        ...

    def writes(self, codes: Codes, x: Tensor, entries: Tensor) -> Tensor:
        """`[len(entries), d_model]`: what one unit of value writes, for the entries of `codes` that are asked for."""
        ...

    def strengths(self, codes: Codes, x: Tensor) -> Tensor:
        """`[nnz]`: |coefficient| · ‖writes‖, the size of what each entry contributes; comparable between systems."""
        ...


def token_rows(batch: int, position_ids: Tensor) -> Tensor:
    """Which sequence and which position each token of a batch is: `[batch · T, 2]` int64.

    position_ids `[batch or 1, T]` are absolute, so they stay right with a KV cache.
    """
    length = position_ids.shape[1]
    sequence = torch.arange(batch, device=position_ids.device)[:, None].expand(batch, length)
    return torch.stack([sequence, position_ids.expand(batch, length)], dim=-1).flatten(0, 1)


def _indptr(lengths: Tensor) -> Tensor:
    return torch.cat([lengths.new_zeros(1, dtype=torch.long), lengths.cumsum(0)])
