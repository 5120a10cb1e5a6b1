"""Trainer's arguments for training on one device: the one that was asked for, however many the machine has."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import TrainingArguments


@dataclass
class OneDevice(TrainingArguments):
    """Left to itself, transformers takes the first GPU, and with several visible ones it wraps the model in
    `DataParallel`, whose replicas know nothing of our losses and taps. `on`: the device, such as `cuda:1`.
    """

    on: str = "cpu"

    def __post_init__(self) -> None:
        self.use_cpu = torch.device(self.on).type == "cpu"
        super().__post_init__()

    @property
    def device(self) -> torch.device:
        """Also makes it the current one: accelerate puts batches on whichever GPU is current."""
        _ = super().device  # sets up accelerate, and makes the first GPU the current one
        asked = torch.device(self.on)
        if asked.type == "cuda":
            asked = torch.device("cuda", asked.index or 0)
            torch.cuda.set_device(asked)
        return asked

    @property
    def n_gpu(self) -> int:
        return int(torch.device(self.on).type == "cuda")
