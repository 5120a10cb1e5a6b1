"""Reading a subject through its units, and running it with the units edited.

There are two kinds of graft and no more. *Native*: the feed-forward layers are read/write pairs themselves; the graft
sets their tap. *Post-hoc*: a dictionary reads and writes at a site of a model that knows nothing of it; the graft is a
forward hook. Metrics see neither: they see a `System`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from kernels.codes import Codes, Edit, ReadWrite, token_rows
from models.feed_forward import FeedForward, Tap

if TYPE_CHECKING:
    from models.subject import Subject

Point = Literal["mlp_out", "resid_post", "mlp"]
_BLOCK = 1 << 22  # strengths side by side at a time


class Site(NamedTuple):
    """Where codes are read. mlp_out: output of the feed-forward layer. resid_post: output of the block. mlp: input and
    output of the feed-forward layer, for transcoders."""

    layer: int
    point: Point

    def __str__(self) -> str:
        return f"{self.point}.{self.layer}"


@dataclass(frozen=True)
class Encoded:
    """Codes of a batch at one site, and the strength `[nnz]` of every entry: |coefficient| · ‖writes‖."""

    codes: Codes
    strengths: Tensor

    def strongest(self, k: int) -> Tensor:
        """Entries that are among the k strongest of their token and carry anything at all. `[nnz]` bool.

        What systems are matched on: a gelu neuron never falls silent, a latent does.
        """
        codes, strengths = self.codes, self.strengths
        kept = strengths > 0
        width = int(codes.row_lengths().max()) if codes.n_tokens else 0
        if width <= k:
            return kept
        tokens = max(1, _BLOCK // width)
        for start in range(0, codes.n_tokens, tokens):
            indptr = codes.indptr[start : start + tokens + 1]
            first, last = int(indptr[0]), int(indptr[-1])
            row = torch.repeat_interleave(indptr.diff(), output_size=last - first)
            place = torch.arange(first, last, device=row.device) - indptr[row]
            block = strengths.new_full((len(indptr) - 1, width), -1.0)
            block[row, place] = strengths[first:last]
            chosen = torch.zeros_like(block, dtype=torch.bool)
            chosen.scatter_(1, block.topk(k, dim=1).indices, True)
            kept[first:last] &= chosen[row, place]
        return kept


class System:
    """A subject and its decomposition: a row of the table.

    dictionaries: what was grafted on, by site; None for a subject whose own units are read at every layer.
    """

    def __init__(self, name: str, model: Subject, dictionaries: Mapping[Site, ReadWrite] | None) -> None:
        self.name, self.model, self.native = name, model, dictionaries is None
        self.layers = model.blocks()
        if dictionaries is None:
            dictionaries = {Site(index, "mlp_out"): layer for index, layer in enumerate(model.feed_forwards())}
        self.decomposition: dict[Site, ReadWrite] = dict(sorted(dictionaries.items()))

    @property
    def sites(self) -> tuple[Site, ...]:
        return tuple(self.decomposition)

    def group_width(self, site: Site) -> int | None:
        """Units of one group, where a site's units stand in groups of equal size one after the other (pools, experts);
        None where there are none, as in every dictionary."""
        layer = self.decomposition[site]
        return layer.group_width if isinstance(layer, FeedForward) else None

    def rest_neurons(self, site: Site) -> int:
        """Hidden neurons of the site that belong to no unit. None in a dictionary: what it leaves out is its error."""
        layer = self.decomposition[site]
        return layer.rest_neurons if isinstance(layer, FeedForward) else 0

    @property
    def device(self) -> torch.device:
        return self.model.device

    @torch.no_grad()
    def encode(self, tokens: Tensor, sites: tuple[Site, ...] | None = None) -> dict[Site, Encoded]:
        """Codes at `sites` (default: all) of `tokens` `[batch, length]`; rows: sequence in the batch, position."""
        found: dict[Site, Encoded] = {}

        def record(site: Site, codes: Codes, x: Tensor) -> Codes:
            found[site] = Encoded(codes, self.decomposition[site].strengths(codes, x))
            return codes

        with self.tapped({site: partial(record, site) for site in sites or self.sites}, error="keep", rest="keep"):
            self.model(tokens, use_cache=False)
        return found

    @contextlib.contextmanager
    def running(
        self,
        edits: Mapping[Site, Edit],
        *,
        error: Literal["keep", "drop"] = "keep",
        rest: Literal["keep", "drop"] = "keep",
    ) -> Iterator[None]:
        """While the block runs, the model passes through its units at the sites of `edits`, with the codes edited.

        error: what a dictionary does not explain, x − (write(read(x)) + rest(x)), is put back or left out; a native
        system has none. rest: what no unit owns is written or left out. The identity edit with error="drop" splices,
        dropping entries ablates, scaled values steer.
        """
        unknown = set(edits) - set(self.decomposition)
        if unknown:
            raise KeyError(f"{self.name} has no site {min(unknown)}; it has {', '.join(map(str, self.sites))}")

        def apply(edit: Edit, codes: Codes, _x: Tensor) -> Codes:
            return edit(codes)

        with self.tapped({site: partial(apply, edit) for site, edit in edits.items()}, error=error, rest=rest):
            yield

    @contextlib.contextmanager
    def replacing(self, outputs: Mapping[Site, Callable[[Tensor], Tensor]]) -> Iterator[None]:
        """While the block runs, the site's output `[batch, length, d_model]` is replaced, units and rest and error."""
        with contextlib.ExitStack() as stack:
            for site, replace in outputs.items():

                def hook(_m: nn.Module, _a: Any, y: Tensor, *, replace: Callable[[Tensor], Tensor] = replace) -> Tensor:
                    return replace(y)

                handle = self._module(site).register_forward_hook(hook)
                stack.callback(handle.remove)
            yield

    @contextlib.contextmanager
    def watching(self, watch: Callable[[Site, Tensor, Tensor], None]) -> Iterator[None]:
        """While the block runs, `watch(site, x, y)` sees what each site's dictionary reads and what it should write:
        both `[batch, length, d_model]`, the same tensor except at `mlp`."""
        with contextlib.ExitStack() as stack:
            for site in self.sites:

                def hook(_m: nn.Module, args: tuple[Tensor, ...], y: Tensor, *, site: Site = site) -> None:
                    watch(site, args[0] if site.point == "mlp" else y, y)

                handle = self._module(site).register_forward_hook(hook)
                stack.callback(handle.remove)
            yield

    @contextlib.contextmanager
    def amending(self, amend: Mapping[Site, Callable[[Tensor, Tensor], Tensor | None]]) -> Iterator[None]:
        """While the block runs, a site's output y becomes `amend[site](x, y)`, or stays where that is None. x: what the
        site's units read; both `[batch, length, d_model]`. Unlike `running`, nothing is read unless `amend` does."""
        with contextlib.ExitStack() as stack:
            for site, change in amend.items():
                of_input = self.native or site.point == "mlp"

                def hook(
                    _m: nn.Module,
                    args: tuple[Tensor, ...],
                    y: Tensor,
                    *,
                    change: Callable[[Tensor, Tensor], Tensor | None] = change,
                    of_input: bool = of_input,
                ) -> Tensor | None:
                    return change(args[0] if of_input else y, y)

                handle = self._module(site).register_forward_hook(hook)
                stack.callback(handle.remove)
            yield

    @contextlib.contextmanager
    def tapped(
        self,
        taps: Mapping[Site, Callable[[Codes, Tensor], Codes]],
        *,
        error: Literal["keep", "drop"],
        rest: Literal["keep", "drop"],
    ) -> Iterator[None]:
        """`running` for taps that also see what the units read: `tap(codes, x)` returns the codes to go on with."""
        with contextlib.ExitStack() as stack:
            for site, edit in taps.items():
                if self.native:
                    layer = cast(FeedForward, self.decomposition[site])
                    stack.callback(setattr, layer, "tap", layer.tap)  # inside, ours takes the place of an outer one
                    layer.tap = Tap(edit, keep_rest=rest == "keep")
                else:
                    hook = partial(_graft, self.decomposition[site], site.point, edit, error == "keep", rest == "keep")
                    handle = self._module(site).register_forward_hook(hook, with_kwargs=True)
                    stack.callback(handle.remove)
            yield

    def _module(self, site: Site) -> nn.Module:
        return self.layers[site.layer] if site.point == "resid_post" else self.model.feed_forwards()[site.layer]


def _graft(
    dictionary: ReadWrite,
    point: Point,
    edit: Callable[[Codes, Tensor], Codes],
    keep_error: bool,
    keep_rest: bool,
    _module: nn.Module,
    args: tuple[Tensor, ...],
    kwargs: dict[str, Any],
    output: Tensor,
) -> Tensor:
    """The forward hook of a post-hoc dictionary: what the site's output becomes."""
    batch, length, width = output.shape
    y = output.reshape(-1, width)
    x = args[0].reshape(-1, args[0].shape[-1]) if point == "mlp" else y
    positions = kwargs.get("position_ids")
    if positions is None:
        positions = args[1] if len(args) > 1 else torch.arange(length, device=output.device)[None]
    codes = dictionary.read(x, token_rows(batch, positions))
    edited = dictionary.write(edit(codes, x), x)
    rest = dictionary.rest(x)
    if keep_error:
        edited = edited + (y - (dictionary.write(codes, x) + rest))
    # A dictionary in float32 may sit in a model in bfloat16.
    return (edited + rest if keep_rest else edited).view_as(output).to(output.dtype)
