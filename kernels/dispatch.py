"""Which implementation of an op runs, and why; and the record of what ran.

Every op has a `reference` in plain torch and may have a `cpu` (numba) and a `gpu` (Triton) implementation. The fastest
one that can run on the tensors at hand is taken; `HARNESS_KERNELS=reference|cpu|gpu` forces one. When the wished one
cannot run, the next is taken and one log line per (op, reason) says so.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType

import torch

log = logging.getLogger(__name__)

IMPLEMENTATIONS = ("reference", "cpu", "gpu")
CPU_DTYPES = (torch.float32,)
GPU_DTYPES = (torch.float32, torch.bfloat16, torch.float16)

_recordings: list[dict[str, str]] = []
_said: set[tuple[str, str]] = set()


@cache
def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def interpreted() -> bool:
    """Whether Triton kernels run in its CPU interpreter (for tests; must be set before a kernel is decorated)."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def forced() -> str | None:
    """What `HARNESS_KERNELS` asks for, or None. Raises ValueError when it names no implementation."""
    wish = os.environ.get("HARNESS_KERNELS")
    if not wish:
        return None
    if wish not in IMPLEMENTATIONS:
        raise ValueError(f"HARNESS_KERNELS={wish!r} is not an implementation: use one of {', '.join(IMPLEMENTATIONS)}")
    return wish


def obstacle(implementation: str, device: str, dtype: torch.dtype) -> str | None:
    """Why `implementation` cannot run on tensors of this device and dtype; None when it can."""
    if implementation == "cpu":
        if device != "cpu":
            return f"the tensors are on {device}"
        if not _installed("numba"):
            return "numba is not installed"
        return None if dtype in CPU_DTYPES else f"{_name(dtype)} has no numba kernel"
    if implementation == "gpu":
        if not _installed("triton"):
            return "triton is not installed"
        if interpreted():
            return None if dtype == torch.float32 else f"Triton's interpreter is wrong in {_name(dtype)}"
        if device != "cuda":
            return "no GPU is available" if not torch.cuda.is_available() else f"the tensors are on {device}"
        return None if dtype in GPU_DTYPES else f"{_name(dtype)} has no Triton kernel"
    return None


@torch.compiler.assume_constant_result
def choose(op: str, device: str, dtype: torch.dtype, has: tuple[str, ...] = ("cpu", "gpu")) -> str:
    """The implementation of `op` to run on tensors of this device and dtype: "reference", "cpu" or "gpu".

    `has`: which fast implementations the op has. Under `torch.compile` the choice is made once, when tracing.
    """
    native = "gpu" if device == "cuda" else "cpu"
    wish = forced() or native
    chosen = "reference"
    for candidate in dict.fromkeys((wish, native)):
        if candidate == "reference":
            break
        why_not = obstacle(candidate, device, dtype) if candidate in has else f"{op} has none"
        if why_not is None:
            chosen = candidate
            break
        _say(op, f"the {candidate} implementation cannot run: {why_not}")
    record(op, chosen)
    return chosen


def load(package: str, implementation: str) -> ModuleType:
    """The module of an implementation, imported when it is first needed: numba and triton are heavy."""
    return importlib.import_module(f"{package}.{implementation}")


def record(op: str, implementation: str) -> None:
    for recording_ in _recordings:
        recording_[op] = implementation


@contextmanager
def recording() -> Iterator[dict[str, str]]:
    """A dict that fills with op name -> implementation while the block runs (provenance of a stage)."""
    ran: dict[str, str] = {}
    _recordings.append(ran)
    try:
        yield ran
    finally:
        # By identity: two recordings with equal contents are still two.
        _recordings[:] = [other for other in _recordings if other is not ran]


def _say(op: str, reason: str) -> None:
    if (op, reason) not in _said:
        _said.add((op, reason))
        log.info("kernels: %s: %s", op, reason)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
