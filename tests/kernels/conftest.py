"""Uninitialised memory is NaN here, and operations that do not repeat raise."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)  # fills torch.empty with NaN (torch.utils.deterministic)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


Run = Callable[..., dict[str, Tensor]]


@pytest.fixture(scope="session")
def outputs_and_gradients() -> Run:
    """run(op, inputs by name, dtype) -> output and, for a fixed cotangent, the gradient of every float input."""

    def run(op: Callable[..., Tensor], inputs: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
        leaves = {
            name: value.to(dtype).clone().requires_grad_() if value.is_floating_point() else value
            for name, value in inputs.items()
        }
        out = op(**leaves)
        cotangent = torch.randn(out.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
        wanted = [name for name, value in leaves.items() if value.is_floating_point()]
        gradients = torch.autograd.grad(out, [leaves[name] for name in wanted], cotangent.to(dtype))
        named = {f"gradient of {name}": g for name, g in zip(wanted, gradients, strict=True)}
        return {"output": out.detach(), **named}

    return run


@pytest.fixture(scope="session")
def assert_same() -> Callable[..., None]:
    """Relative error by norm, tensor by tensor. Random sums cancel: float32 alone is off by up to some 1e-5."""

    def check(fast: dict[str, Tensor], truth: dict[str, Tensor], tolerance: float = 2e-5) -> None:
        assert fast.keys() == truth.keys()
        for name in truth:
            a, b = (t[name].to_dense().double() if t[name].is_sparse else t[name].double() for t in (fast, truth))
            assert a.shape == b.shape, name
            error, size = float((a - b).norm()), float(b.norm())
            assert error <= tolerance * size + 1e-6, f"{name}: off by {error:.3g} of {size:.3g}"

    return check


@pytest.fixture
def forced(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """forced("reference") makes every op use that implementation."""
    return lambda implementation: monkeypatch.setenv("HARNESS_KERNELS", implementation)
