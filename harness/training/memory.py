"""Peak memory: of a training on a GPU, and of a process that does one thing.

On the CPU the peak of one training cannot be told in a process that trains several: the system counts pages of the
process, and those that an earlier row left lie among them. There a row has no peak.
"""

from __future__ import annotations

import resource
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn


@dataclass(frozen=True)
class DeviceMemory:
    """What is allocated on a GPU from now on. others: bytes that were allocated before and are not of the training."""

    device: torch.device
    others: int

    @staticmethod
    def watch(device: str, *models: nn.Module) -> DeviceMemory | None:
        """models: what the training holds on the device already. None on a CPU, which cannot tell."""
        if not device.startswith("cuda"):
            return None
        where = torch.device(device)
        torch.cuda.reset_peak_memory_stats(where)
        own = sum(t.numel() * t.element_size() for model in models for t in (*model.parameters(), *model.buffers()))
        return DeviceMemory(where, torch.cuda.memory_allocated(where) - own)

    def peak(self) -> int:
        """Bytes of the training alone."""
        return int(torch.cuda.max_memory_allocated(self.device)) - self.others


def reset_peak_memory() -> None:
    """On Linux, sets the kernel's high-water mark of this process back to what is in use."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return  # not Linux, or not allowed: the peak since the process began is reported


def peak_memory() -> int:
    """Bytes resident in this process at most, everything that it loaded included."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
