"""What is read of a system for this metric: codes, what its units read, what sites write, what is left without them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from harness.metrics.concepts.activity import Integers
from harness.systems.directions import competing
from harness.systems.evaluation import Evaluation
from harness.systems.system import Encoded, Site, System
from kernels.codes import Codes


@dataclass(frozen=True)
class Read:
    """Of one split, on the tokens that are asked about.

    By site: encoded; read: what the layer there reads; written: what the site adds to the residual stream or, for
    resid_post, leaves in it. stream: what the unembedding reads; without_layers: the same where every feed-forward
    layer writes nothing, so that attention alone is left. All but the codes `[tokens, d_model]`. logits `[tokens,
    vocabulary]`, less their mean.
    """

    encoded: dict[Site, Encoded]
    read: dict[Site, Tensor]
    written: dict[Site, Tensor]
    stream: Tensor
    without_layers: Tensor
    logits: Tensor


@torch.no_grad()
def read(evaluation: Evaluation, tokens: Integers, *, dev: bool) -> Read:
    """The first `codes_sequences` of a split, `tokens` of them. The codes of eval are those that are stored."""
    system = evaluation.system
    parts: dict[Site, list[Encoded]] = {site: [] for site in system.sites}
    read: dict[Site, list[Tensor]] = {site: [] for site in system.sites}
    written: dict[Site, list[Tensor]] = {site: [] for site in system.sites}
    stream: list[Tensor] = []
    without_layers: list[Tensor] = []

    def watch(site: Site, _x: Tensor, y: Tensor) -> None:
        written[site].append(y.flatten(0, 1).float().cpu())

    for batch in evaluation.batches(evaluation.codes_sequences, dev=dev):
        with system.watching(watch), _inputs(system, read):
            stream.append(_stream(system, batch.input_ids))
        with _layers_silent(system):
            without_layers.append(_stream(system, batch.input_ids))
        if dev:
            for site, encoded in system.encode(batch.input_ids).items():
                parts[site].append(Encoded(encoded.codes.cpu(), encoded.strengths.cpu()))
    asked = torch.from_numpy(tokens)
    encoded = {site: _on(_joined(parts[site]) if dev else evaluation.load_codes(site), asked) for site in system.sites}
    at_end = torch.cat(stream)[asked]
    logits = at_end @ system.model.unembedding().float().cpu().T
    return Read(
        encoded,
        {site: torch.cat(pieces)[asked] for site, pieces in read.items()},
        {site: torch.cat(pieces)[asked] for site, pieces in written.items()},
        at_end,
        torch.cat(without_layers)[asked],
        logits - logits.mean(1, keepdim=True),
    )


def _stream(system: System, input_ids: Tensor) -> Tensor:
    """What the output head reads of every token."""
    found: list[Tensor] = []
    handle = system.model.final_norm().register_forward_hook(lambda _norm, _args, y: found.append(cast(Tensor, y)))
    try:
        system.model(input_ids, use_cache=False, logits_to_keep=1)
    finally:
        handle.remove()
    return found[0].flatten(0, 1).float().cpu()


@contextlib.contextmanager
def _inputs(system: System, into: dict[Site, list[Tensor]]) -> Iterator[None]:
    """While the block runs, `into` collects what the feed-forward layers at the sites read."""
    with contextlib.ExitStack() as stack:
        for site, found in into.items():

            def record(_module: nn.Module, args: tuple[Tensor, ...], *, found: list[Tensor] = found) -> None:
                found.append(args[0].flatten(0, 1).float().cpu())

            stack.callback(_layers(system)[site.layer].register_forward_pre_hook(record).remove)
        yield


@contextlib.contextmanager
def _layers_silent(system: System) -> Iterator[None]:
    def silent(_module: nn.Module, _args: tuple[Tensor, ...], y: Tensor) -> Tensor:
        return torch.zeros_like(y)

    with contextlib.ExitStack() as stack:
        for layer in _layers(system):
            stack.callback(layer.register_forward_hook(silent).remove)
        yield


def _layers(system: System) -> list[nn.Module]:
    return list(system.model.feed_forwards())


def _joined(pieces: Sequence[Encoded]) -> Encoded:
    return Encoded(Codes.cat([one.codes for one in pieces]), torch.cat([one.strengths for one in pieces]))


def _on(encoded: Encoded, tokens: Tensor) -> Encoded:
    """Only these tokens, ascending."""
    codes = encoded.codes
    wanted = torch.zeros(codes.n_tokens, dtype=torch.bool)
    wanted[tokens] = True
    entries = wanted[codes.token_of_entry()]
    lengths = codes.row_lengths()[tokens]
    indptr = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    kept = Codes(indptr, codes.units[entries], codes.values[entries], codes.rows[tokens], codes.n_units)
    return Encoded(kept, encoded.strengths[entries])


def random_codes(dev: Read, evaluation: Read, seed: int) -> tuple[list[Encoded], list[Encoded]]:
    """By site, of both splits: codes of random directions in place of the units, as many. Every second one reads what
    the layer reads and the others what the site writes, whatever the road, so that no road is compared with the poorer
    of the two. They compete for as many places on every token (`systems/directions.py`), by their size where units have
    both signs. The same directions on both splits."""
    made: tuple[list[Encoded], list[Encoded]] = ([], [])
    for place, site in enumerate(dev.encoded):
        own = dev.encoded[site].codes
        means = [x[site].mean(0) for x in (dev.read, dev.written)]
        # Of one size, so that they compete as equals.
        sizes = [
            (x[site] - mean).square().mean().sqrt() for x, mean in zip((dev.read, dev.written), means, strict=True)
        ]
        generator = np.random.default_rng([seed, 5, place])
        drawn = torch.from_numpy(generator.standard_normal((own.n_units, len(means[0]))).astype(np.float32))
        drawn = drawn / drawn.norm(dim=1, keepdim=True)
        reads = torch.arange(own.n_units)[:, None] % 2 == 0
        both = torch.cat([drawn * reads, drawn * ~reads], 1)  # [units, 2 · d_model]
        signed = bool((own.values < 0).any())
        for split, found in zip((dev, evaluation), made, strict=True):
            lengths = split.encoded[site].codes.row_lengths().numpy()
            x = [
                (of[site] - mean) / size
                for of, mean, size in zip((split.read, split.written), means, sizes, strict=True)
            ]
            codes = competing(torch.cat(x, 1), both, lengths, signed=signed)
            found.append(Encoded(codes, codes.values.abs()))
    return made


def codes_of(parts: Sequence[Encoded]) -> list[Codes]:
    return [encoded.codes for encoded in parts]


def offsets(parts: Sequence[Codes]) -> list[int]:
    """The first unit of every site where the units of all sites are counted through, and their number."""
    return np.cumsum([0, *(codes.n_units for codes in parts)]).tolist()
