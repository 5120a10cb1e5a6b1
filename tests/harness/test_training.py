"""Training of subjects: the optimiser, the curve, and a killed run that continues on it."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import models
from harness import training
from harness.errors import HarnessError, Interrupted
from harness.optimizer import MuonAdamW
from harness.progress import silent
from harness.training import TrainingRecord, train_subject
from harness.training_config import TrainingConfig

TINY = {"d_model": 16, "n_layers": 2, "n_heads": 2, "vocab_size": 61, "max_position_embeddings": 32}
CONFIG = TrainingConfig(tokens=40 * 4 * 32, batch_sequences=4, log_every=4, checkpoints=4)


class Sequences:
    """Sequences in which every second token follows from the one before."""

    length = 32

    def __init__(self) -> None:
        self.ids = np.random.default_rng(0).integers(0, 61, (50, 32))
        self.ids[:, 1::2] = (self.ids[:, 0::2] * 7 + 3) % 61

    def __len__(self) -> int:
        return len(self.ids)

    def input_ids(self, index: int) -> np.ndarray:
        return self.ids[index]


def train(work: Path, architecture: str = "dense", config: TrainingConfig = CONFIG) -> TrainingRecord:
    work.mkdir(exist_ok=True)
    torch.manual_seed(3)
    sizes = {"n_experts": 36, "heads": 2, "k": 3, "d_key": 4} if architecture == "peer" else {}
    model = models.build(architecture, **TINY, **sizes)
    return train_subject(
        model,
        config,
        Sequences(),  # pyright: ignore[reportArgumentType]
        seed=3,
        work=work,
        report=silent,
        device="cpu",
        dtype="float32",
    )


def outcome(work: Path) -> tuple[bytes, list[tuple[int, float, float]]]:
    rows = [json.loads(line) for line in (work / "curve.jsonl").read_text().splitlines()]
    weights = (work / "model" / "model.safetensors").read_bytes()
    return weights, [(row["step"], row["loss"], row["lr"]) for row in rows]


@pytest.mark.parametrize("architecture", ["dense", "peer"])
def test_training_learns_and_says_what_it_took(tmp_path: Path, architecture: str) -> None:
    record = train(tmp_path, architecture)
    curve = outcome(tmp_path)[1]
    assert [row[0] for row in curve] == list(range(4, 41, 4))
    assert curve[-1][1] < curve[0][1] - 0.2
    assert record == TrainingRecord.load(tmp_path)
    assert record.tokens == CONFIG.tokens
    assert record.training_flops == 3 * record.forward_flops_per_token * record.tokens
    assert not (tmp_path / "checkpoint").exists()
    reloaded = models.architecture(architecture).model_class.from_pretrained(tmp_path / "model")
    assert sum(p.numel() for p in reloaded.parameters()) == record.parameters


def test_the_same_seed_gives_the_same_weights_to_the_bit(tmp_path: Path) -> None:
    for name in ("one", "two"):
        train(tmp_path / name, "peer")
    assert outcome(tmp_path / "one") == outcome(tmp_path / "two")


def test_a_killed_run_continues_on_the_same_curve_to_the_bit(tmp_path: Path) -> None:
    train(tmp_path / "whole")
    # A real process, killed with SIGKILL once it has written a checkpoint and gone on.
    program = f"""
import sys, time
sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(Path(__file__).parents[2])!r}]
import torch
torch.set_num_threads({torch.get_num_threads()})
from pathlib import Path
import harness.training as t
before = t._Watcher.on_step_end
def slowly(self, *a, **k):
    time.sleep(0.05)
    return before(self, *a, **k)
t._Watcher.on_step_end = slowly
import test_training
test_training.train(Path({str(tmp_path / "killed")!r}))
"""
    process = subprocess.Popen([sys.executable, "-c", program])
    curve = tmp_path / "killed" / "curve.jsonl"
    deadline = time.monotonic() + 90
    while not (curve.exists() and curve.read_text().count("\n") >= 5):
        assert process.poll() is None, "the run ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert list((tmp_path / "killed" / "checkpoint").glob("*/complete.json"))
    train(tmp_path / "killed")
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole")


def test_a_checkpoint_that_was_cut_off_is_passed_over(tmp_path: Path) -> None:
    train(tmp_path / "whole")
    _stopped_after(tmp_path / "cut", 28)
    newest = max((tmp_path / "cut" / "checkpoint").iterdir(), key=lambda path: int(path.name.split("-")[1]))
    (newest / "complete.json").unlink()
    (newest / "optimizer.pt").write_bytes(b"half")
    train(tmp_path / "cut")
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")


def test_sigterm_stops_with_a_checkpoint_and_the_next_run_continues(tmp_path: Path) -> None:
    train(tmp_path / "whole")
    _stopped_after(tmp_path / "stopped", 20)
    train(tmp_path / "stopped")
    assert outcome(tmp_path / "stopped") == outcome(tmp_path / "whole")


def _stopped_after(work: Path, step: int) -> None:
    """As the handler of SIGTERM does it, at this step."""

    class Stop(training.StopSignal):
        @property
        def requested(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
            curve = work / "curve.jsonl"
            return f'"step": {step},' in (curve.read_text() if curve.exists() else "")

    original, training.STOP = training.STOP, Stop()
    try:
        with pytest.raises(Interrupted) as caught:
            train(work)
        assert caught.value.exit_code == 75
    finally:
        training.STOP = original


def test_a_loss_that_is_not_finite_ends_the_run_with_the_step(tmp_path: Path) -> None:
    config = TrainingConfig(**{**CONFIG.model_dump(), "learning_rate": 1e30, "matrix_learning_rate": 1e30})
    with pytest.raises(HarnessError, match="training loss became nan at step"):
        train(tmp_path, config=config)


def test_the_optimiser_gives_each_role_its_rule() -> None:
    model = models.build("peer", **TINY, n_experts=36, heads=2, k=3, d_key=4)
    roles = model.parameter_roles()
    config = TrainingConfig(matrix_learning_rate=0.1, table_learning_rate=0.2, router_learning_rate=0.3)
    optimizer = MuonAdamW(model, roles, config)
    named = {id(parameter): name for name, parameter in model.named_parameters()}
    rates = {
        named[id(parameter)]: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert set(rates) == set(roles)
    expected = {"matrix": (0.1, 0.1), "table": (0.2, 0.0), "router": (0.3, 0.0), "norm": (1e-2, 0.0)}
    for name, role in roles.items():
        assert rates[name] == expected.get(role, (1e-2, 0.0)), name


def test_the_optimiser_goes_on_from_its_saved_state_to_the_bit() -> None:
    def steps(optimizer: MuonAdamW, model: torch.nn.Module, n: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for _ in range(n):
            for parameter in model.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            optimizer.step()

    torch.manual_seed(0)
    one = models.build("dense", **TINY)
    first = MuonAdamW(one, one.parameter_roles(), TrainingConfig())
    steps(first, one, 3, seed=1)
    two = models.build("dense", **TINY)
    two.load_state_dict(one.state_dict())
    second = MuonAdamW(two, two.parameter_roles(), TrainingConfig())
    second.load_state_dict(copy.deepcopy(first.state_dict()))  # loading shares tensors
    steps(first, one, 3, seed=2)
    steps(second, two, 3, seed=2)
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)
