from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).with_name("gpu_in_interpreter.py")
ROOT = SCRIPT.parents[2]


def test_triton_kernels_equal_the_reference_in_the_interpreter():
    pytest.importorskip("triton")
    # Triton reads the variable when a kernel is decorated: it needs a process of its own.
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, str(SCRIPT)], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_triton_kernels_equal_the_reference_on_a_gpu(dtype):
    from kernels.rank1_experts import rank1_experts, reference

    x, u, v = (torch.randn(n, 256, device="cuda", dtype=dtype) for n in (64, 1000, 1000))
    indices = torch.randint(0, 1000, (64, 32), device="cuda")
    gates = torch.rand(64, 32, device="cuda", dtype=dtype)
    ours = rank1_experts(x, u, v, indices, gates, "gelu").double()
    truth = reference.rank1_experts(x.double(), u.double(), v.double(), indices, gates.double(), "gelu")
    assert (ours - truth).norm() < (1e-5 if dtype == torch.float32 else 1e-2) * truth.norm()
