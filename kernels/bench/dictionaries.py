"""A whole training step of a sparse dictionary, Adam included, and the selections alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels import sparse_dictionary as sd
from kernels.bench import measure
from kernels.bench.measure import Ceilings, TimedRow
from kernels.bench.rivals import Rivals
from kernels.selection import batch_topk, column_topk, topk

LR = 1e-3


@dataclass(frozen=True)
class DictionarySizes:
    tokens: int = 4096
    d: int = 256
    n: int = 8192
    k: int = 32


class Trainer:
    """A TopK, Mutual Choice or Feature Choice step on our ops: summed squared error per token, clipping, Adam."""

    def __init__(self, size: DictionarySizes, kind: str, weights: dict[str, Tensor], device: str) -> None:
        self.size, self.kind = size, kind
        w_enc, w_dec = weights["W_enc"].to(device), weights["W_dec"].to(device)
        # The encoder in the memory order of its transpose: its gradient is computed by rows of that.
        self.w_enc = torch.nn.Parameter(w_enc.t().contiguous().t())
        self.w_dec = torch.nn.Parameter(w_dec.clone())
        self.b_enc = torch.nn.Parameter(torch.zeros(size.n, device=device))
        self.b_dec = torch.nn.Parameter(torch.zeros(size.d, device=device))
        self.parameters = [self.w_enc, self.w_dec, self.b_enc, self.b_dec]
        self.optimizer = torch.optim.Adam(self.parameters, lr=LR, fused=True)
        self.pre = torch.empty(size.tokens, size.n, device=device)
        ranks = torch.arange(1, size.n + 1, device=device)
        share = (1 / ranks) / (1 / ranks).sum()
        self.per_unit = (share * size.k * size.tokens).long().clamp(1, size.tokens)

    def step(self, x: Tensor) -> Tensor:
        centred = x - self.b_dec
        encoder = (centred, self.w_enc, self.b_enc)
        with torch.no_grad():
            pre = sd.preactivations(*encoder, out=self.pre)
        if self.kind == "topk":
            units, values = sd.encode_topk(*encoder, self.size.k, pre=pre)
            decoded = sd.decode_slots(units, values.relu(), self.w_dec)
        else:
            if self.kind == "mutual choice":
                entries = sd.encode_batch_topk(*encoder, self.size.k * len(x), pre=pre)
            else:
                entries = sd.encode_column_topk(*encoder, self.per_unit, pre=pre)
            indptr, units, values = entries
            decoded = sd.decode_rows(indptr, units, values.relu(), self.w_dec)
        return self._update((x - self.b_dec - decoded).square().sum(1).mean())

    def dense_step(self, x: Tensor) -> Tensor:
        """The same TopK step in plain torch, every product dense."""
        pre = (x - self.b_dec) @ self.w_enc + self.b_enc
        best = pre.topk(self.size.k, dim=1)
        codes = torch.zeros_like(pre).scatter(1, best.indices, best.values.relu())
        return self._update((x - self.b_dec - codes @ self.w_dec).square().sum(1).mean())

    def _update(self, loss: Tensor) -> Tensor:
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        return loss.detach()


def steps(size: DictionarySizes, ceilings: Ceilings, rivals: Rivals, rounds: int, device: str) -> list[TimedRow]:
    g = torch.Generator().manual_seed(0)
    w_dec = F.normalize(torch.randn(size.n, size.d, generator=g), dim=1)
    weights = {"W_dec": w_dec, "W_enc": w_dec.t().contiguous()}
    x = _activations(size, g).to(device)
    trainers = {kind: Trainer(size, kind, weights, device) for kind in ("topk", "mutual choice", "feature choice")}
    dense = Trainer(size, "topk", weights, device)
    works: dict[str, measure.Work] = {
        "ours": lambda: trainers["topk"].step(x),
        "plain torch, dense": lambda: dense.dense_step(x),
    }
    sae_lens = rivals.sae_lens_step(size.d, size.n, size.k, weights, LR)
    theirs = rivals.dictionary_learning_step(size.d, size.n, size.k)
    if sae_lens is not None:
        works["SAELens"] = lambda: sae_lens(x)
    if theirs is not None:
        works["dictionary-learning"] = lambda: theirs(x)
    flops = 2 * size.tokens * size.d * size.n
    note = f"equal loss curve: {_curves(size, weights, x, rivals, device)}"
    main = measure.row(
        f"TopK step with Adam, d {size.d}, {size.n} latents, k {size.k}, batch {size.tokens}", works, rounds,
        {"SAELens": 4.0, "dictionary-learning": 3.5}, "multiply", flops / ceilings.multiply / 1e6,
        note=f"share: the encoder product alone, the least a step needs; {note}",
    )  # fmt: skip
    others: dict[str, measure.Work] = {
        "ours": lambda: trainers["topk"].step(x),
        "mutual choice": lambda: trainers["mutual choice"].step(x),
        "feature choice": lambda: trainers["feature choice"].step(x),
    }
    choices = measure.row(
        "TopK step against the other selections' (ratio: what they cost more; aim: at most 1.3)", others, rounds
    )
    return [main, choices]


def selections(size: DictionarySizes, rounds: int, device: str) -> list[TimedRow]:
    """The selections against torch's own top-k."""
    a = torch.randn(size.tokens, size.n, device=device)
    m = torch.full((size.n,), max(1, size.k * size.tokens // size.n), device=device)
    flat = a.flatten()
    works = (
        ("per row", lambda: topk(a, size.k), lambda: a.topk(size.k)),
        ("over the batch", lambda: batch_topk(a, size.k * size.tokens), lambda: flat.topk(size.k * size.tokens)),
        ("per column", lambda: column_topk(a, m), lambda: a.topk(int(m[0]), dim=0)),
    )
    least = 4 * a.numel()
    return [
        measure.row(f"selection {name}, {size.tokens} × {size.n}", {"ours": ours, "torch.topk": theirs}, rounds,
                    note=f"reads {least / 1e6:.0f} MB")
        for name, ours, theirs in works
    ]  # fmt: skip


def _activations(size: DictionarySizes, g: torch.Generator) -> Tensor:
    """Sparse sums of fixed directions: something a dictionary can learn."""
    directions = F.normalize(torch.randn(2 * size.d, size.d, generator=g), dim=1)
    strengths = torch.rand(size.tokens, 2 * size.d, generator=g)
    return (strengths * (torch.rand(size.tokens, 2 * size.d, generator=g) < 0.03)) @ directions


def _curves(size: DictionarySizes, weights: dict[str, Tensor], x: Tensor, rivals: Rivals, device: str) -> str:
    """Losses of ten steps from the same weights, ours against the dense step and SAELens'."""
    ours, dense = (Trainer(size, "topk", weights, device) for _ in range(2))
    sae_lens = rivals.sae_lens_step(size.d, size.n, size.k, weights, LR)
    losses = {"ours": [], "plain torch": []} | ({"SAELens": []} if sae_lens is not None else {})
    for _ in range(10):
        losses["ours"].append(float(ours.step(x)))
        losses["plain torch"].append(float(dense.dense_step(x)))
        if sae_lens is not None:
            losses["SAELens"].append(float(sae_lens(x)))
    mine = losses.pop("ours")
    worst = {name: max(abs(a - b) / b for a, b in zip(mine, curve, strict=True)) for name, curve in losses.items()}
    text = ", ".join(f"{name} differs by at most {value:.1e}" for name, value in worst.items())
    return f"{mine[0]:.3f} to {mine[-1]:.3f} in ten steps, {text} (relative)"
