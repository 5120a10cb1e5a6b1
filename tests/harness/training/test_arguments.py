"""Which device transformers' Trainer is told to use. The GPUs are pretended: only what is asked of torch is seen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from transformers.training_args import ParallelMode

from harness.base.errors import BadInput
from harness.run.device import numerics_on
from harness.training.arguments import OneDevice


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[torch.device]]:
    """The devices that were made the current one, in this order."""
    current: list[torch.device] = []
    AcceleratorState._reset_state(reset_partial_state=True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: current.append(torch.device(device)))
    yield current
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize(("asked", "index"), [("cuda", 0), ("cuda:0", 0), ("cuda:1", 1)])
def test_with_two_gpus_one_is_used_and_it_is_the_one_that_was_asked_for(
    two_gpus: list[torch.device], tmp_path: Path, asked: str, index: int
) -> None:
    arguments = OneDevice(output_dir=str(tmp_path), on=asked, per_device_train_batch_size=8)
    assert arguments.device == torch.device("cuda", index)
    assert two_gpus[-1] == arguments.device  # accelerate sends batches to the current one
    assert arguments.n_gpu == 1  # else Trainer wraps the model in DataParallel
    assert arguments.parallel_mode == ParallelMode.NOT_PARALLEL
    assert arguments.train_batch_size == 8


@pytest.mark.usefixtures("two_gpus")
def test_the_command_takes_a_gpu_that_there_is_with_its_number_and_names_those_for_another() -> None:
    assert numerics_on("cuda:1", "float32").device == "cuda:1"
    with pytest.raises(BadInput, match=r"--device 'cuda:2': did you mean cuda:.\? .*cuda:0, cuda:1"):
        numerics_on("cuda:2", "float32")


def test_on_the_cpu_no_gpu_is_touched(two_gpus: list[torch.device], tmp_path: Path) -> None:
    arguments = OneDevice(output_dir=str(tmp_path), on="cpu", per_device_train_batch_size=8)
    assert arguments.device == torch.device("cpu")
    assert arguments.n_gpu == 0
    assert two_gpus == []
