"""Peak memory of a stage: of the device where it counts for itself, of this process otherwise."""

from __future__ import annotations

import resource
from pathlib import Path

import torch


def reset_peak_memory(device: str) -> None:
    """Start counting anew. On Linux the kernel's high-water mark of this process is set back to what is in use."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        return
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return  # not Linux, or not allowed: the peak since the process began is reported


def peak_memory(device: str) -> int:
    """Bytes: allocated on the GPU, or resident in this process (everything it loaded included)."""
    if device.startswith("cuda"):
        return int(torch.cuda.max_memory_allocated())
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
