"""Rank-1 experts, the whole PEER layer, and how search and experts grow with the number of experts."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.bench import measure
from kernels.bench.measure import Ceilings, TimedRow, interleaved, relative_error
from kernels.bench.rivals import Rivals
from kernels.product_keys import search
from kernels.rank1_experts import rank1_experts, reference


@dataclass(frozen=True)
class ExpertSizes:
    """tokens, width, experts, active experts per token (heads · k)."""

    tokens: int = 2048
    d: int = 256
    n_experts: int = 128**2
    heads: int = 4
    k: int = 16

    @property
    def slots(self) -> int:
        return self.heads * self.k


Op = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def rank1(size: ExpertSizes, ceilings: Ceilings, rounds: int, device: str) -> list[TimedRow]:
    """Forward + backward against gather-and-einsum and gather + embedding_bag; and the peak memory of each."""
    inputs = _inputs(size, device)
    works = {
        "ours": _forward_backward(_ours, inputs),
        "embedding_bag": _forward_backward(_gather_and_bag, inputs),
        "reference": _forward_backward(_reference, inputs),
    }
    works["ours"]()
    memory = {name: measure.extra_memory(work) for name, work in works.items()}
    # Read u once and, where relu lets half of the slots through, v forward, u and v backward; write both gradients.
    moved = 4 * size.d * (size.tokens * size.slots * (1 + 3 * 0.5) + 2 * size.n_experts + 4 * size.tokens)
    small = _inputs(ExpertSizes(64, 64, 400, 2, 8), device)
    ours = _gradients(_ours, small, torch.float32)
    truth = _gradients(_reference, small, torch.float64)
    note = "; ".join(f"peak extra memory {name} {mb:.0f} MB" for name, mb in memory.items() if mb is not None)
    return [
        measure.row(
            f"rank-1 experts fwd+bwd, relu, {size.tokens} tokens, d {size.d}, {size.n_experts} experts, "
            f"{size.slots} active",
            works,
            rounds,
            {"reference": 15.0, "embedding_bag": 8.0},
            "copy",
            moved / ceilings.copy / 1e6,
            relative_error(ours, truth),
            f"{moved / 1e6:.0f} MB must move if no row stays in cache; {note}",
        )
    ]


class Layer(torch.nn.Module):
    """A PEER layer on our ops, with what `peer-pytorch` has: no norm, per-head keys, softmax over each head's k."""

    def __init__(self, size: ExpertSizes) -> None:
        super().__init__()
        n, d_key = round(size.n_experts**0.5), size.d // 2
        self.size = size
        self.queries = torch.nn.Linear(size.d, d_key * size.heads * 2, bias=False)
        self.keys = torch.nn.Parameter(torch.randn(2, size.heads, n, d_key) * 0.02)
        self.u = torch.nn.Parameter(torch.randn(size.n_experts, size.d))
        self.v = torch.nn.Parameter(torch.randn(size.n_experts, size.d))

    def forward(self, x: Tensor) -> Tensor:
        q = self.queries(x).view(len(x), 2, self.size.heads, -1)
        scores, indices = search(q[:, 0], q[:, 1], self.keys[0], self.keys[1], self.size.k)
        gates = scores.softmax(-1).flatten(1)
        return rank1_experts(x, self.u, self.v, indices.flatten(1), gates, "relu")


def peer_layer(size: ExpertSizes, rivals: Rivals, rounds: int, device: str) -> list[TimedRow]:
    """The whole layer, forward + backward, against the `peer-pytorch` package with equally many active experts."""
    theirs = rivals.peer_layer(size.d, size.heads, size.n_experts, size.k)
    layer = Layer(size).to(device)
    x = torch.randn(size.tokens, size.d, device=device)
    works: dict[str, measure.Work] = {"ours": lambda: _step(layer, x)}
    note = "peer-pytorch is not installed"
    if theirs is not None:
        theirs = theirs.to(device)
        works["peer-pytorch"] = lambda: _step(theirs, x[None])
        note = "peer-pytorch with non_competing_scores=False, which keeps k experts per head"
    return [measure.row("PEER layer fwd+bwd, same sizes", works, rounds, {"peer-pytorch": 5.0}, note=note)]


def scaling(rounds: int, device: str, largest: int = 10) -> tuple[list[TimedRow], str]:
    """Search and experts per token from 2^14 to 2^20 experts; table gradients as sparse rows."""
    rows, search_ms, expert_ms = [], [], []
    powers = range(7, largest + 1)
    for power in powers:
        size = ExpertSizes(1024, 256, 4**power, 4, 16)
        q = torch.randn(2, size.tokens, size.heads, size.d // 2, device=device)
        keys = torch.randn(2, 1, 2**power, size.d // 2, device=device)
        inputs = _inputs(size, device)
        works = {
            "search": lambda q=q, keys=keys, k=size.k: search(q[0], q[1], keys[0], keys[1], k),
            "experts": _forward_backward(_ours_sparse, inputs),
        }
        times = interleaved(works, rounds)
        for name, kept in (("search", search_ms), ("experts", expert_ms)):
            ms = statistics.median(times[name])
            kept.append(ms)
            tables = f"tables of {2 * 4 * size.d * size.n_experts / 1e6:.0f} MB" if name == "experts" else ""
            each = 1e3 / size.tokens
            low, _, high = statistics.quantiles(times[name], n=4) if rounds > 1 else [ms] * 3
            what = f"{name}, 2^{2 * power} experts, µs (not ms) per token"
            rows.append(TimedRow(what, ms * each, (low * each, high * each), note=tables))
    growth = 2.0 ** (powers[-1] - powers[0])
    summary = (
        f"From 2^14 to 2^{2 * powers[-1]} experts search grows {search_ms[-1] / search_ms[0]:.2f}× (√N grows "
        f"{growth:.0f}×), "
        f"experts {expert_ms[-1] / expert_ms[0]:.2f}× (target: below 3.5×)."
    )
    return rows, summary


def _inputs(size: ExpertSizes, device: str) -> tuple[Tensor, ...]:
    g = torch.Generator(device).manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=g, device=device)  # noqa: E731
    indices = torch.randint(0, size.n_experts, (size.tokens, size.slots), generator=g, device=device)
    u, v = (draw(size.n_experts, size.d) for _ in range(2))
    return draw(size.tokens, size.d), u.div_(size.d**0.5), v, indices, draw(size.tokens, size.slots).abs()


def _ours(x: Tensor, u: Tensor, v: Tensor, indices: Tensor, gates: Tensor) -> Tensor:
    return rank1_experts(x, u, v, indices, gates, "relu")


def _ours_sparse(x: Tensor, u: Tensor, v: Tensor, indices: Tensor, gates: Tensor) -> Tensor:
    return rank1_experts(x, u, v, indices, gates, "relu", sparse_gradients=True)


def _reference(x: Tensor, u: Tensor, v: Tensor, indices: Tensor, gates: Tensor) -> Tensor:
    return reference.rank1_experts(x, u, v, indices, gates, "relu")


def _gather_and_bag(x: Tensor, u: Tensor, v: Tensor, indices: Tensor, gates: Tensor) -> Tensor:
    c = gates * torch.einsum("td,tsd->ts", x, F.embedding(indices, u)).relu()
    return F.embedding_bag(indices, v, per_sample_weights=c, mode="sum")


def _gradients(op: Op, inputs: tuple[Tensor, ...], dtype: torch.dtype) -> list[Tensor]:
    leaves = [t.to(dtype).requires_grad_() if t.is_floating_point() else t for t in (t.clone() for t in inputs)]
    out = op(*leaves)
    return [out.detach(), *torch.autograd.grad(out, [t for t in leaves if t.requires_grad], torch.ones_like(out))]


def _forward_backward(op: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> measure.Work:
    leaves = [t.detach().requires_grad_() if t.is_floating_point() else t for t in inputs]

    def work() -> None:
        for leaf in leaves:
            leaf.grad = None
        out = op(*leaves)
        out.backward(torch.ones_like(out))

    return work


def _step(layer: torch.nn.Module, x: Tensor) -> None:
    layer.zero_grad(set_to_none=True)
    out = layer(x)
    out.backward(torch.ones_like(out))
