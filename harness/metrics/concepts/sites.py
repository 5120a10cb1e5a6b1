"""What is read of a system for this metric: codes, what its units read, what sites write, what is left without them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from harness.metrics.concepts.activity import Integers
from harness.systems.directions import competing
from harness.systems.evaluation import Evaluation
from harness.systems.system import Encoded, Site, System
from kernels.codes import Codes

if TYPE_CHECKING:
    from models.trunk import TrunkForCausalLM


@dataclass(frozen=True)
class Read:
    """Of one split, on the tokens that are asked about.

    By site: encoded; seen: what the site's units read; written: what the site adds to the residual stream or, for
    resid_post, leaves in it. stream: what the unembedding reads; without_layers: the same where every feed-forward
    layer writes nothing, so that attention alone is left. All but the codes `[tokens, d_model]`.
    """

    encoded: dict[Site, Encoded]
    seen: dict[Site, Tensor]
    written: dict[Site, Tensor]
    stream: Tensor
    without_layers: Tensor


@torch.no_grad()
def read(evaluation: Evaluation, tokens: Integers, *, dev: bool) -> Read:
    """The first `codes_sequences` of a split, `tokens` of them. The codes of eval are those that are stored."""
    system = evaluation.system
    parts: dict[Site, list[Encoded]] = {site: [] for site in system.sites}
    seen: dict[Site, list[Tensor]] = {site: [] for site in system.sites}
    written: dict[Site, list[Tensor]] = {site: [] for site in system.sites}
    stream: list[Tensor] = []
    without_layers: list[Tensor] = []

    def watch(site: Site) -> Callable[[Tensor, Tensor], None]:
        def record(x: Tensor, y: Tensor) -> None:
            seen[site].append(x.flatten(0, 1).float().cpu())
            written[site].append(y.flatten(0, 1).float().cpu())

        return record

    for batch in evaluation.batches(evaluation.codes_sequences, dev=dev):
        with system.amending({site: watch(site) for site in system.sites}):  # looks on, and changes nothing
            stream.append(_stream(system, batch.input_ids))
        with _layers_silent(system.model):
            without_layers.append(_stream(system, batch.input_ids))
        if dev:
            for site, encoded in system.encode(batch.input_ids).items():
                parts[site].append(Encoded(encoded.codes.cpu(), encoded.strengths.cpu()))
    asked = torch.from_numpy(tokens)
    encoded = {site: _on(_joined(parts[site]) if dev else evaluation.load_codes(site), asked) for site in system.sites}
    return Read(
        encoded,
        {site: torch.cat(pieces)[asked] for site, pieces in seen.items()},
        {site: torch.cat(pieces)[asked] for site, pieces in written.items()},
        torch.cat(stream)[asked],
        torch.cat(without_layers)[asked],
    )


def _stream(system: System, input_ids: Tensor) -> Tensor:
    return system.model.model(input_ids=input_ids, use_cache=False).last_hidden_state.flatten(0, 1).float().cpu()


@contextlib.contextmanager
def _layers_silent(model: TrunkForCausalLM) -> Iterator[None]:
    def silent(_module: nn.Module, _args: tuple[Tensor, ...], y: Tensor) -> Tensor:
        return torch.zeros_like(y)

    with contextlib.ExitStack() as stack:
        for layer in model.feed_forwards():
            stack.callback(layer.register_forward_hook(silent).remove)
        yield


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
    """By site, of both splits: codes of random directions in place of the units. They read what the units read, are as
    many, and compete for as many places on every token (`systems/directions.py`), by their size where units have both
    signs. The same directions on both splits."""
    made: tuple[list[Encoded], list[Encoded]] = ([], [])
    for place, (site, x) in enumerate(dev.seen.items()):
        own = dev.encoded[site].codes
        generator = np.random.default_rng([seed, 5, place])
        drawn = torch.from_numpy(generator.standard_normal((own.n_units, x.shape[1])).astype(np.float32))
        drawn = drawn / drawn.norm(dim=1, keepdim=True)
        signed = bool((own.values < 0).any())
        for split, found in zip((dev, evaluation), made, strict=True):
            lengths = split.encoded[site].codes.row_lengths().numpy()
            codes = competing(split.seen[site] - x.mean(0), drawn, lengths, signed=signed)
            found.append(Encoded(codes, codes.values.abs()))
    return made


def codes_of(parts: Sequence[Encoded]) -> list[Codes]:
    return [encoded.codes for encoded in parts]


def offsets(parts: Sequence[Codes]) -> list[int]:
    """The first unit of every site where the units of all sites are counted through, and their number."""
    return np.cumsum([0, *(codes.n_units for codes in parts)]).tolist()
