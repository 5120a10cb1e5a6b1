"""Where a command computes, from what a person asked for."""

from __future__ import annotations

import torch

from harness.base.errors import BadInput
from harness.run.numerics import Numerics
from kernels.registry import nearest


def numerics_on(device: str, dtype: str) -> Numerics:
    """auto: cuda where there is one. BadInput: no such device here, or a format that it has not."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.split(":")[0] not in ("cpu", "cuda"):
        raise BadInput(f"--device {device!r}: {nearest(device, ['auto', 'cpu', 'cuda'])}")
    if device != "cpu" and not torch.cuda.is_available():
        raise BadInput(f"--device {device!r}: this machine has no usable CUDA device; use cpu")
    if device not in ("cpu", "cuda"):
        have = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
        if device not in have:
            raise BadInput(f"--device {device!r}: {nearest(device, ['auto', 'cpu', 'cuda', *have])}")
    if dtype not in ("float32", "bfloat16"):
        raise BadInput(f"--dtype {dtype!r}: {nearest(dtype, ['float32', 'bfloat16'])}")
    if dtype == "bfloat16" and device == "cpu":
        raise BadInput("--dtype 'bfloat16': only on a GPU (a CPU would be slower and less exact); use float32")
    return Numerics(device, dtype, torch.get_num_threads())
