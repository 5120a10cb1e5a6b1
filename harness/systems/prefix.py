"""Runs a subject with units edited at one position, many contexts and edits in one forward pass.

What is read is the distribution of the next token at the edited position. Positions before it do not see the edit, so
one native pass over the sequence gives their keys and values, and every edited variant is a single token that attends
to those and to itself: exact, and as many variants as one likes run side by side as tokens of one batch (test_prefix.py
compares with the whole sequence run again for each edit).

Two more things are the native pass's and are taken from it: the layers below a variant's first edit, and at an edited
site all that is not edited. `write` is linear in the coefficients, so the site's output moves by what the change of
coefficients writes; other codes, gates and a dictionary's error cancel.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.cache_utils import Cache

from harness.systems.system import Site, System
from kernels.codes import Codes

_ATTENTION = "edited_variants"  # under which `_attend` is known to transformers
_NATIVE: ContextVar[Any] = ContextVar(
    "_NATIVE"
)  # the cache it attends to: not every model hands on what it is called with


@dataclass(frozen=True)
class Entries:
    """What units are set to: row `[m]` (which variant of a pass), unit `[m]`, value `[m]`; 0 is off. Each (row, unit)
    stands once."""

    row: Tensor
    unit: Tensor
    value: Tensor


class Prefix:
    """One sequence as the subject runs it natively, to which edited variants of its positions are compared."""

    @torch.no_grad()
    def __init__(self, system: System, tokens: Tensor) -> None:
        """tokens `[length]`."""
        self.system, self.tokens = system, tokens
        self._model = system.model
        self._layers = list(system.layers)
        # What layers leave behind for later ones (the routing of a group's first) has to be of the same variants.
        self._whole = self._model.carries
        self._into: list[Tensor] = []  # of every layer: its input `[length, d_model]`; last, the last one's output
        self._calls: list[dict[str, Any]] = []  # of every layer: what it was called with beside its input
        self._read: dict[Site, Tensor] = {}  # what the units of a site read, `[length, d_model]`
        self._out: dict[Site, Tensor] = {}  # what the site's output is

        def keep(site: Site, x: Tensor, y: Tensor) -> None:
            self._read[site], self._out[site] = x[0], y[0]

        with contextlib.ExitStack() as stack:
            stack.enter_context(system.amending({site: partial(keep, site) for site in system.sites}))
            for layer in self._layers:
                stack.callback(layer.register_forward_pre_hook(self._called, with_kwargs=True).remove)
            norm = self._model.final_norm()
            stack.callback(norm.register_forward_pre_hook(lambda _n, args: self._into.append(args[0][0])).remove)
            self._cache = self._model(tokens[None], use_cache=True, logits_to_keep=1).past_key_values

    def _called(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        said = inspect.signature(layer.forward)
        arguments = dict(said.bind(*args, **kwargs).arguments)
        self._into.append(arguments.pop(next(iter(said.parameters)))[0])
        for name, parameter in said.parameters.items():
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                arguments |= arguments.pop(name, {})
        self._calls.append(arguments)

    @property
    def dtype(self) -> torch.dtype:
        return self._into[0].dtype

    def residual(self, positions: Tensor) -> Tensor:
        """`[n, d_model]`: what comes to the final norm natively."""
        return self._into[-1][positions]

    @torch.no_grad()
    def written(self, site: Site, positions: Tensor, units: Tensor, values: Tensor) -> Tensor:
        """`[n, d_model]`: what unit `units[i]` with value `values[i]` writes at position `positions[i]`."""
        x = self._read[site][positions]
        rows = torch.stack([torch.zeros_like(positions), positions], dim=1)
        start = torch.arange(len(units) + 1, device=units.device)
        dictionary = self.system.decomposition[site]
        return dictionary.write(Codes(start, units, values.to(x.dtype), rows, dictionary.n_units), x)

    @torch.no_grad()
    def strength(self, site: Site, positions: Tensor, units: Tensor) -> Tensor:
        """`[n]`: the norm of what unit `units[i]` writes at position `positions[i]` natively; 0 where it is silent."""
        x = self._read[site][positions]
        rows = torch.stack([torch.zeros_like(positions), positions], dim=1)
        here = torch.arange(len(units), device=units.device)
        values = _coefficients(self.system.decomposition[site].read(x, rows), here, units)
        return self.written(site, positions, units, values).norm(dim=-1)

    @torch.no_grad()
    def logits(
        self,
        positions: Tensor,
        edits: Mapping[Site, Entries] | None = None,
        pushes: Mapping[Site, Tensor] | None = None,
        *,
        held: bool = False,
    ) -> Tensor:
        """Logits of the next token `[variants, vocabulary]` after positions `[variants]` of this sequence.

        edits: what units are set to, in the rows of `positions`; gates, other codes of the site and a dictionary's
        error stay as they are, everything downstream runs. A unit at a later site that is set holds its value whatever
        an earlier edit would make of it; other units there respond. pushes: vectors `[variants, d_model]` added to a
        site's output. held: at every site, what its units do not write (a dictionary's error, a side MLP) stays the
        native one, so that only units respond.
        """
        edits = {site: entries for site, entries in (edits or {}).items() if len(entries.row)}
        pushes = pushes or {}
        first = self._first_sites(positions, edits, pushes)
        order = first.argsort(stable=True)  # so that the variants that run in a layer are the first so many
        place = order.argsort()
        positions, first = positions[order], first[order]
        amend: dict[Site, Callable[[Tensor, Tensor], Tensor]] = {}
        for site in sorted({*edits, *pushes, *(self.system.sites if held else ())}):
            entries = edits.get(site)
            if entries is not None:
                entries = replace(entries, row=place[entries.row])
            push = pushes[site][order] if site in pushes else None
            amend[site] = partial(self._amended, site, positions, first, entries, push, held)
        x = self._into[0][:0]
        layers = torch.tensor([*(site.layer for site in self.system.sites), len(self._layers)], device=first.device)
        begins = 0 * first if self._whole else layers[first]
        ends = torch.searchsorted(begins, torch.arange(len(self._layers), device=first.device), right=True).tolist()
        with self.system.amending(amend), self._attending():
            for index, (layer, end) in enumerate(zip(self._layers, ends, strict=True)):
                if end > len(x):
                    x = torch.cat([x, self._into[index][positions[len(x) : end]]])
                if end:
                    x = layer(x[None], **self._call(index, positions[:end]))[0]
        x = torch.cat([x, self._into[-1][positions[len(x) :]]])
        return self._model.unembed(x)[place]

    def _call(self, index: int, positions: Tensor) -> dict[str, Any]:
        """What layer `index` is called with for variants of `positions` `[n]`, each of which is a token of its own."""
        native, length = self._calls[index], len(self.tokens)

        def of_variants(value: Any) -> Any:
            if isinstance(value, tuple):
                return tuple(of_variants(part) for part in value)
            if isinstance(value, Tensor) and value.ndim and value.shape[min(1, value.ndim - 1)] == length:
                return value[positions] if value.ndim == 1 else value[:, positions]  # [length] or [1, length, ...]
            return None if isinstance(value, Cache) else value

        found = {name: of_variants(value) for name, value in native.items() if name != "attention_mask"}
        seen = torch.arange(length, device=positions.device) < positions[:, None]
        mask = native["attention_mask"]  # `[1, 1, length, length]` where causal is not all: a sliding window
        if mask is not None:
            at = mask[0, 0, positions, :length]
            seen &= at if at.dtype == torch.bool else at == 0
        hidden = torch.zeros(seen.shape, dtype=self.dtype, device=seen.device)
        return {**found, "attention_mask": hidden.masked_fill_(~seen, -torch.inf)}

    def _first_sites(self, positions: Tensor, edits: Mapping[Site, Entries], pushes: Mapping[Site, Tensor]) -> Tensor:
        """Up to which site (of system.sites) every variant is the native one; their number where nothing is done."""
        first = torch.full_like(positions, len(self.system.sites))
        for index, site in reversed(list(enumerate(self.system.sites))):
            if site in pushes:
                first[(pushes[site] != 0).any(1)] = index
            if site in edits:
                first[edits[site].row] = index
        return first

    def _amended(
        self,
        site: Site,
        positions: Tensor,
        first: Tensor,
        entries: Entries | None,
        push: Tensor | None,
        held: bool,
        x: Tensor,
        y: Tensor,
    ) -> Tensor:
        """Output y of a site for x, both `[1, variants that run, d_model]`, after its edits and pushes."""
        x, out = x[0], y[0]
        n = len(x)
        if held:
            out = self._by_units(site, x, positions[:n]) + self._unexplained(site, positions[:n])
        if entries is not None:
            rows = torch.stack([torch.zeros_like(positions[:n]), positions[:n]], dim=1)
            readers, of = self._readers(site, positions, first[:n], entries.row)
            dictionary = self.system.decomposition[site]
            values = _coefficients(dictionary.read(x[readers], rows[readers]), of, entries.unit)
            edited, token = entries.row.unique(return_inverse=True)
            change = entries.value.to(values.dtype) - values
            codes = _codes(token, entries.unit, change, rows[edited], dictionary.n_units)
            out = out.index_add(0, edited, dictionary.write(codes, x[edited]))
        return (out if push is None else out + push[:n].to(out.dtype))[None]

    def _by_units(self, site: Site, x: Tensor, positions: Tensor) -> Tensor:
        """What units write at `positions` for inputs x, both of `[n]` variants."""
        rows = torch.stack([torch.zeros_like(positions), positions], dim=1)
        dictionary = self.system.decomposition[site]
        return dictionary.write(dictionary.read(x, rows), x)

    def _unexplained(self, site: Site, positions: Tensor) -> Tensor:
        """What the site's output natively has beside what its units write. `[n, d_model]`"""
        own = positions.unique()
        rest = self._out[site][own] - self._by_units(site, self._read[site][own], own)
        return rest[torch.searchsorted(own, positions)]

    def _readers(self, site: Site, positions: Tensor, first: Tensor, edited: Tensor) -> tuple[Tensor, Tensor]:
        """Variants whose codes are read, and which of these stands for each of the variants `edited` `[m]`: those of
        one position that come to the site as the native one have the same codes."""
        if self._whole:
            return torch.arange(len(first), device=edited.device), edited
        native = first[edited] == self.system.sites.index(site)
        sources, of = torch.where(native, positions[edited], len(self.tokens) + edited).unique(return_inverse=True)
        return torch.zeros_like(sources).scatter(0, of, edited), of

    @contextlib.contextmanager
    def _attending(self) -> Iterator[None]:
        config = self._model.config
        before = config._attn_implementation
        config._attn_implementation = _ATTENTION
        native = _NATIVE.set(self._cache)
        try:
            yield
        finally:
            _NATIVE.reset(native)
            config._attn_implementation = before


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    hidden: Tensor,
    *,
    scaling: float,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of variants, each to the native prefix and to itself; the prefix's keys are one matrix for all of them.

    query `[1, heads, variants, d]`, key and value `[1, key heads, variants, d]`; hidden `[variants, length]`, −∞ where
    a variant does not look. Returns `[1, variants, heads, d]`.
    """
    heads, n, d = query.shape[1:]
    shared = key.shape[1]  # several heads may have the same keys
    native = _NATIVE.get().layers[module.layer_idx]
    keys, values = native.keys[0], native.values[0]
    q = (query[0] * scaling).view(shared, -1, n, d)
    others = (q.flatten(1, 2) @ keys.transpose(1, 2)).view(shared, -1, n, keys.shape[1])
    own = (q * key[0][:, None]).sum(-1, keepdim=True)
    if softcap is not None:  # Gemma 2's
        others, own = (softcap * torch.tanh(scores / softcap) for scores in (others, own))
    weights = torch.cat([others + hidden, own], dim=-1).softmax(-1)  # [key heads, heads of each, variants, length + 1]
    found = (weights[..., :-1].flatten(1, 2) @ values).view(shared, -1, n, d) + weights[..., -1:] * value[0][:, None]
    return found.reshape(heads, n, d).transpose(0, 1)[None], None


AttentionInterface.register(_ATTENTION, _attend)


def _coefficients(codes: Codes, token: Tensor, unit: Tensor) -> Tensor:
    """`[m]`: the coefficient of unit `[m]` on token `[m]`; 0 where it is silent."""
    if not codes.nnz:
        return codes.values.new_zeros(len(unit))
    keys = codes.token_of_entry() * codes.n_units + codes.units
    wanted = token * codes.n_units + unit
    place = torch.searchsorted(keys, wanted).clamp_max(codes.nnz - 1)
    return torch.where(keys[place] == wanted, codes.values[place], 0)


def _codes(token: Tensor, unit: Tensor, value: Tensor, rows: Tensor, n_units: int) -> Codes:
    """Codes of these entries `[m]` in any order, each (token, unit) once, zeros left out; rows `[tokens, 2]`."""
    order = (token * n_units + unit).argsort()
    order = order[value[order] != 0]
    lengths = torch.bincount(token[order], minlength=len(rows))
    indptr = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    return Codes(indptr, unit[order], value[order], rows, n_units)
