"""Run by test_gpu.py in a process of its own, where Triton interprets: every gpu.py against the reference, in fp32.

Tiny shapes: a program costs milliseconds. The interpreter is wrong in bf16, so that waits for a GPU.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kernels import dispatch, rows_gpu
from kernels import sparse_dictionary as sd
from kernels.product_keys import search
from kernels.rank1_experts import ACTIVATIONS, coefficients, rank1_experts
from kernels.selection import batch_topk, column_topk, topk


def outcome(implementation: str, op: Callable[..., Tensor], inputs: list[Tensor]) -> list[Tensor]:
    os.environ["HARNESS_KERNELS"] = implementation
    leaves = [t.clone().requires_grad_() if t.is_floating_point() else t for t in inputs]
    with dispatch.recording() as ran:
        out = op(*leaves)
        cotangent = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
        gradients = torch.autograd.grad(out, [t for t in leaves if t.is_floating_point()], cotangent)
    assert set(ran.values()) == {implementation}, ran
    return [out.detach(), *gradients]


def check(name: str, op: Callable[..., Tensor], inputs: list[Tensor]) -> None:
    ours, truth, again = (outcome(which, op, inputs) for which in ("gpu", "reference", "gpu"))
    for number, (a, b, c) in enumerate(zip(ours, truth, again, strict=True)):
        assert (a - b).norm() <= 3e-6 * b.norm() + 1e-7, f"{name}, tensor {number}: {a} is not {b}"
        assert torch.equal(a, c), f"{name}, tensor {number} does not repeat"


def experts() -> None:
    for n_experts, slots, activation in zip((9, 1, 4, 30), (10, 3, 1, 8), ACTIVATIONS, strict=True):
        x, u, v = torch.randn(3, 11), torch.randn(n_experts, 11), torch.randn(n_experts, 11)
        indices, gates = torch.randint(0, n_experts, (3, slots)), torch.randn(3, slots)
        check(activation, lambda *a, act=activation: rank1_experts(*a, act), [x, u, v, indices, gates])
        check(activation, lambda *a, act=activation: coefficients(*a, act), [x, u, indices, gates])
    hot = torch.zeros(2 * rows_gpu.PIECE + 3, 1, dtype=torch.long)  # pieces of one row
    sources = torch.randn(len(hot), 3)
    total = rows_gpu.table_gradient(torch.arange(len(hot) + 1), hot[:, 0], torch.ones(len(hot)), sources, 2)
    assert torch.allclose(total, torch.stack([sources.sum(0), torch.zeros(3)]), atol=1e-4)


def keys() -> None:
    for heads, k in ((1, 1), (2, 5), (2, 16)):
        whole = [torch.randint(-2, 3, (*shape, 3)).float() for shape in ((2, 2), (2, 2), (heads, 6), (heads, 6))]
        check("search", lambda *a, k=k: search(*a, k)[0], whole)
        os.environ["HARNESS_KERNELS"] = "gpu"
        _, ours = search(*whole, k)
        os.environ["HARNESS_KERNELS"] = "reference"
        assert torch.equal(ours, search(*whole, k)[1]), "ties"


def dictionary() -> None:
    weights = [torch.randn(5, 6), torch.randn(6, 20), torch.randn(20), torch.randn(20, 6)]

    def by_rows(x: Tensor, w_enc: Tensor, b_enc: Tensor, w_dec: Tensor) -> Tensor:
        units, values = sd.encode_topk(x, w_enc, b_enc, 4)
        return sd.decode_slots(units, values.relu(), w_dec)

    def by_batch(x: Tensor, w_enc: Tensor, b_enc: Tensor, w_dec: Tensor) -> Tensor:
        indptr, units, values = sd.encode_batch_topk(x, w_enc, b_enc, 15)
        return sd.decode_rows(indptr, units, values, w_dec)

    def by_columns(x: Tensor, w_enc: Tensor, b_enc: Tensor, w_dec: Tensor) -> Tensor:
        indptr, units, values = sd.encode_column_topk(x, w_enc, b_enc, torch.arange(20) % 4)
        return sd.decode_rows(indptr, units, values, w_dec)

    for name, op in (("rows", by_rows), ("batch", by_batch), ("columns", by_columns)):
        check(name, op, weights)
    ties = torch.randint(-2, 3, (4, 9)).float()
    for pick in (lambda a: topk(a, 4), lambda a: batch_topk(a, 11), lambda a: column_topk(a, torch.arange(9) % 4)):
        results = []
        for implementation in ("gpu", "reference"):
            os.environ["HARNESS_KERNELS"] = implementation
            results.append(pick(ties))
        assert all(torch.equal(a, b) for a, b in zip(*results, strict=True)), "selection"


def wide_tables(folder: Path) -> None:
    d, n = 2048, 2**20 + 64
    mapped = np.memmap(folder / "table", np.float32, "w+", shape=(n, d))  # a sparse file
    row = np.random.default_rng(0).normal(size=d).astype(np.float32)
    mapped[n - 1] = row
    table, one = torch.from_numpy(mapped), torch.ones(1)
    out = rows_gpu.weighted_rows(torch.tensor([0, 1]), torch.tensor([n - 1]), one, table)
    assert np.allclose(out[0].numpy(), row)


if __name__ == "__main__":
    import tempfile

    assert dispatch.interpreted()
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True)  # fills torch.empty with NaN
    experts()
    keys()
    dictionary()
    with tempfile.TemporaryDirectory() as folder:
        wide_tables(Path(folder))
