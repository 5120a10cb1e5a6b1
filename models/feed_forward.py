"""The slot that an architecture fills: a feed-forward layer whose parts can be read and edited."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import initialization as init

from kernels import sparse_dictionary
from kernels.codes import Codes
from models.config import TrunkConfig, residual_std
from models.counted import counted_active, counted_flops

Role = Literal["embedding", "norm", "matrix", "router", "table"]


@dataclass
class Tap:
    """What a layer does while somebody looks in: its codes go through `edit(codes, x)`, `x` `[tokens, d_model]`.

    keep_rest: whether what no unit owns is added (biases, a side MLP); False measures what the units do alone.
    """

    edit: Callable[[Codes, Tensor], Codes]
    keep_rest: bool = True


class FeedForward(nn.Module, ABC):
    """A feed-forward layer whose parts can be read and edited: implements `kernels.codes.ReadWrite`.

    Without a tap, forward is `fused`. With one it is `write(edit(read(x)), x) + rest(x)`; the two agree to rounding
    when the edit changes nothing. Nothing else calls `read`, so caches, compilation and sharding keep working.

    Layers get their place (`layer_index`, from 0) and what `build_shared` returned for the whole model: parameters tied
    across layers live there, and a group's first layer can leave its routing there for the layers after it.

    A layer says `n_units`, `read` and `write` (or, with `FixedWrites`, `write_vectors`); the rest follows from them or
    from its shapes. What it says better by itself, it says: a faster `fused`, a closed form of its cost.

    auxiliary: in training mode, the layer's auxiliary losses on the last forward by name, unweighted, 0-d, with
    gradient. A layer that has the loss `name` has `name_coefficient` in its config.

    rest_neurons: hidden neurons that belong to no unit (a side MLP's), which a reader has to read as well.

    group_width: units stand in groups of so many, one group after the other (the experts of a pool, the neurons of an
    expert); None where a layer has no groups.

    padding: `[tokens]` bool, true where a token is padding by the forward's attention mask; None where there was no
    mask. Auxiliary losses leave those tokens out (`on_text`).
    """

    n_units: int
    group_width: int | None = None
    rest_neurons: int = 0
    tap: Tap | None = None
    padding: Tensor | None = None
    # Roles of parameters, by their name inside the layer, where the default (norm if 1-D, matrix if 2-D) is wrong.
    roles: Mapping[str, Role] = MappingProxyType({})

    def __init__(self, config: TrunkConfig, layer_index: int, shared: nn.Module | None) -> None:
        super().__init__()
        self.config = config
        self.layer_index = layer_index
        self.auxiliary: dict[str, Tensor] = {}
        self._shared = (shared,)  # in a tuple: its parameters belong to the model, once, and not to every layer

    @property
    def shared(self) -> nn.Module | None:
        return self._shared[0]

    def on_text(self, values: Tensor) -> Tensor:
        """The rows of `values` `[tokens, ...]` that belong to text and not to padding."""
        return values if self.padding is None else values[~self.padding]

    @classmethod
    def build_shared(cls, config: TrunkConfig) -> nn.Module | None:
        """The module that all layers of one model share; None where they share nothing."""
        return None

    def init_weights(self, config: TrunkConfig) -> None:
        """Initialise the parameters that hang directly on this module (transformers calls it; linears are done).

        Use `transformers.initialization`, which leaves alone what was loaded. Unless a layer says otherwise, shapes
        decide: tensors of two or more dimensions are drawn as linears are, vectors stay as the layer made them, and a
        linear from another width to d_model writes to the residual stream.
        """
        for parameter in self.parameters(recurse=False):
            if parameter.ndim > 1:
                init.normal_(parameter, std=config.initializer_range)
        for linear in (module for module in self.modules() if isinstance(module, nn.Linear)):
            writes = linear.out_features == config.d_model != linear.in_features
            if writes and not getattr(linear, "writes_residual", False):  # one that is marked was drawn so
                init.normal_(linear.weight, std=residual_std(config))

    def forward(self, x: Tensor, position_ids: Tensor) -> Tensor:
        """x `[batch, T, d_model]`, position_ids `[batch or 1, T]` absolute positions -> `[batch, T, d_model]`."""
        self.auxiliary = {}
        flat = x.flatten(0, 1)  # [tokens, d_model]
        if self.tap is None:
            return self.fused(flat).view_as(x)
        sequence = torch.arange(x.shape[0], device=x.device)[:, None].expand(x.shape[:2])
        rows = torch.stack([sequence, position_ids.expand(x.shape[:2])], dim=-1).flatten(0, 1)  # [tokens, 2]
        out = self.write(self.tap.edit(self.read(flat, rows), flat), flat)
        if self.tap.keep_rest:
            out = out + self.rest(flat)
        return out.view_as(x)

    def fused(self, x: Tensor) -> Tensor:
        """x `[tokens, d_model]` -> `[tokens, d_model]`, the fastest way. Through the units, unless a layer knows a
        faster one."""
        rows = torch.zeros(len(x), 2, dtype=torch.long, device=x.device)  # nobody looks at them
        return self.write(self.read(x, rows), x) + self.rest(x)

    @abstractmethod
    def read(self, x: Tensor, rows: Tensor) -> Codes:
        """Codes of the tokens x `[tokens, d_model]`; rows `[tokens, 2]` is passed through into them."""

    @abstractmethod
    def write(self, codes: Codes, x: Tensor) -> Tensor:
        """`[tokens, d_model]`: the sum over units of coefficient times what the unit writes. Linear in codes.values."""

    @abstractmethod
    def writes(self, codes: Codes, x: Tensor, entries: Tensor) -> Tensor:
        """`[len(entries), d_model]`: what one unit of value writes, for these entries (indices into codes.values)."""

    def strengths(self, codes: Codes, x: Tensor) -> Tensor:
        """`[nnz]`: |coefficient| · ‖writes‖."""
        everything = torch.arange(codes.nnz, device=codes.values.device)
        # In pieces: all entries of a wide dense layer at once would take nnz × d_model.
        norms = [self.writes(codes, x, entries).norm(dim=-1) for entries in everything.split(1 << 16)]
        return codes.values.abs() * torch.cat([codes.values.new_zeros(0), *norms])

    def rest(self, x: Tensor) -> Tensor:
        """`[tokens, d_model]`: what no unit owns. Nothing, unless a layer says otherwise."""
        return torch.zeros_like(x)

    def flops_per_token(self) -> int:
        """Forward FLOPs of the layer's matrix products for one token (a multiply-add is 2). Counted, unless a layer has
        a closed form."""
        return counted_flops(self)

    def parameter_count(self) -> int:
        """Parameters, each once; those of `shared` are the model's."""
        return sum(p.numel() for p in self.parameters())

    def active_parameters(self) -> int:
        """Parameters that one token touches. Counted, unless a layer has a closed form."""
        return counted_active(self)

    def __getstate__(self) -> dict:
        """Copies do not get the graph of the last forward (torch refuses to copy tensors that hang in one)."""
        return {**self.__dict__, "auxiliary": {}}


class FixedWrites(FeedForward):
    """A layer whose units each write one direction, whatever the input: neurons, rank-1 experts."""

    @abstractmethod
    def write_vectors(self) -> Tensor:
        """`[n_units, d_model]`"""

    def write(self, codes: Codes, x: Tensor) -> Tensor:
        return sparse_dictionary.decode(codes, self.write_vectors())

    def writes(self, codes: Codes, x: Tensor, entries: Tensor) -> Tensor:
        return self.write_vectors().index_select(0, codes.units[entries])

    def strengths(self, codes: Codes, x: Tensor) -> Tensor:
        return codes.values.abs() * self.write_vectors().norm(dim=-1).index_select(0, codes.units)
