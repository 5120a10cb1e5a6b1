"""Training of subjects: the optimiser, the curve, and a killed run that continues on it."""

from __future__ import annotations

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
from harness.progress import silent
from harness.targets import dev_cross_entropy
from harness.training import Teacher, TrainingRecord, save_untrained, train_subject
from harness.training_config import Distillation, Floor, StrengthL1, TargetStrengthL0, TrainingConfig

TINY = {"d_model": 16, "n_layers": 2, "n_heads": 2, "vocab_size": 61, "max_position_embeddings": 32}
SMALL = {
    "peer": {"n_experts": 36, "heads": 2, "k": 3, "d_key": 4},
    "moex": {"n_experts": 4, "k": 2, "d_expert": 8},
    "monet-hd": {"n_experts": 36, "heads": 2, "k": 3, "d_expert": 4},
    "pools": {
        "pools": 4,
        "experts_per_pool": 16,
        "max_experts": 4,
        "d_key": 4,
        "side_width": 8,
        "sparse_gradients": True,
    },
}
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


def train(
    work: Path, architecture: str = "dense", config: TrainingConfig = CONFIG, teacher: Teacher | None = None
) -> TrainingRecord:
    work.mkdir(exist_ok=True)
    torch.manual_seed(3)
    model = models.build(architecture, **TINY, **SMALL.get(architecture, {}))
    return train_subject(
        model,
        config,
        Sequences(),  # pyright: ignore[reportArgumentType]
        seed=3,
        work=work,
        report=silent,
        device="cpu",
        dtype="float32",
        teacher=teacher,
        dev=Sequences(),  # pyright: ignore[reportArgumentType]
    )


def curve_of(work: Path) -> list[dict[str, float]]:
    """The rows, without how fast it went."""
    rows = [json.loads(line) for line in (work / "curve.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "tokens_per_second"} for row in rows]


def outcome(work: Path) -> tuple[bytes, list[dict[str, float]]]:
    return (work / "model" / "model.safetensors").read_bytes(), curve_of(work)


def teacher() -> Teacher:
    torch.manual_seed(8)
    return Teacher(models.build("dense", **TINY, d_ff=96), training_flops=5e6)


FLOORED = TrainingConfig(
    **{**CONFIG.model_dump(), "target": Floor(kind="floor", teacher="t", delta=0.05, mu_rate=0.3),
       "sparsity": TargetStrengthL0(kind="target_l0", weight=1.0, l0=2)}
)  # fmt: skip
TAUGHT = TrainingConfig(**{**CONFIG.model_dump(), "target": Distillation(kind="kl", teacher="t", alpha=0.5)})


@pytest.mark.parametrize("architecture", ["dense", "peer"])
def test_training_learns_and_says_what_it_took(tmp_path: Path, architecture: str) -> None:
    record = train(tmp_path, architecture)
    curve = outcome(tmp_path)[1]
    assert [row["step"] for row in curve] == list(range(4, 41, 4))
    assert curve[-1]["loss"] < curve[0]["loss"] - 0.2
    assert "objective" not in curve[0]  # it is the loss
    assert [0 < row["units_used"] <= 1 for row in curve] == [True] * 10
    assert [row["units_used"] for row in curve] == sorted(row["units_used"] for row in curve)
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


@pytest.mark.parametrize("config", [FLOORED, TAUGHT], ids=["floor", "kl"])
def test_a_target_with_a_teacher_continues_to_the_bit_with_its_multiplier(
    tmp_path: Path, config: TrainingConfig
) -> None:
    architecture = "peer" if config is FLOORED else "dense"
    train(tmp_path / "whole", architecture, config, teacher())
    _stopped_after(tmp_path / "stopped", 20, architecture, config, teacher())
    record = train(tmp_path / "stopped", architecture, config, teacher())
    assert outcome(tmp_path / "stopped") == outcome(tmp_path / "whole")
    assert record.mu == TrainingRecord.load(tmp_path / "whole").mu
    if config is FLOORED:
        curve = curve_of(tmp_path / "whole")
        assert len({row["mu"] for row in curve}) == len(curve)  # it moved, so it had to be kept
        assert record.floor == dev_cross_entropy(teacher().model, Sequences()) + 0.05


def test_a_teachers_training_and_forward_passes_are_charged_to_the_student(tmp_path: Path) -> None:
    taught = train(tmp_path / "kl", config=TAUGHT, teacher=teacher())
    forward = teacher().model.forward_flops_per_token(32)  # pyright: ignore[reportCallIssue]
    assert taught.teacher_flops == 5e6 + forward * taught.tokens
    assert taught.training_flops == 3 * taught.forward_flops_per_token * taught.tokens + taught.teacher_flops
    floored = train(tmp_path / "floor", config=FLOORED, teacher=teacher())
    assert floored.teacher_flops == 5e6


def test_the_curve_has_the_loss_and_every_term_of_what_is_minimised(tmp_path: Path) -> None:
    train(tmp_path / "kl", config=TAUGHT, teacher=teacher())
    for row in curve_of(tmp_path / "kl"):
        assert row["objective"] == pytest.approx(0.5 * row["kl"] + 0.5 * row["loss"], rel=1e-4)
    sparse = TrainingConfig(**{**CONFIG.model_dump(), "sparsity": StrengthL1(kind="l1", weight=0.5)})
    train(tmp_path / "l1", config=sparse)
    for row in curve_of(tmp_path / "l1"):
        assert row["objective"] == pytest.approx(row["loss"] + 0.5 * row["sparsity"], rel=1e-4)


def test_a_sparsity_loss_lowers_what_it_measures(tmp_path: Path) -> None:
    ends = {}
    for weight in (1e-6, 2.0):
        sparsity = TargetStrengthL0(kind="target_l0", weight=weight, l0=2)
        train(tmp_path / str(weight), config=TrainingConfig(**{**CONFIG.model_dump(), "sparsity": sparsity}))
        ends[weight] = curve_of(tmp_path / str(weight))[-1]["sparsity"]
    assert ends[2.0] < 0.7 * ends[1e-6]


def test_an_untrained_subject_is_the_model_as_it_was_made(tmp_path: Path) -> None:
    torch.manual_seed(3)
    model = models.build("dense", **TINY)
    record = save_untrained(model, 32, tmp_path)
    assert record == TrainingRecord.load(tmp_path)
    assert (record.tokens, record.training_flops, curve_of(tmp_path)) == (0, 0.0, [])
    again = models.architecture("dense").model_class.from_pretrained(tmp_path / "model")
    for a, b in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def _stopped_after(
    work: Path,
    step: int,
    architecture: str = "dense",
    config: TrainingConfig = CONFIG,
    teacher: Teacher | None = None,
) -> None:
    """As the handler of SIGTERM does it, at this step."""

    class Stop(training.StopSignal):
        @property
        def requested(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
            curve = work / "curve.jsonl"
            return f'"step": {step},' in (curve.read_text() if curve.exists() else "")

    original, training.STOP = training.STOP, Stop()
    try:
        with pytest.raises(Interrupted) as caught:
            train(work, architecture, config, teacher)
        assert caught.value.exit_code == 75
    finally:
        training.STOP = original


def test_a_loss_that_is_not_finite_ends_the_run_with_the_step(tmp_path: Path) -> None:
    config = TrainingConfig(**{**CONFIG.model_dump(), "learning_rate": 1e30, "matrix_learning_rate": 1e30})
    with pytest.raises(HarnessError, match="training loss became nan at step"):
        train(tmp_path, config=config)


def test_auxiliary_losses_are_minimised_too_and_each_has_its_curve(tmp_path: Path) -> None:
    train(tmp_path / "whole", "moex")
    for row in curve_of(tmp_path / "whole"):
        assert row["objective"] == pytest.approx(row["loss"] + row["auxiliary"], rel=1e-5)
        assert row["auxiliary"] == pytest.approx(1e-2 * row["auxiliary/balance"], rel=1e-4)


@pytest.mark.parametrize("architecture", ["monet-hd", "pools"])
def test_batch_statistics_and_sparse_tables_continue_to_the_bit(tmp_path: Path, architecture: str) -> None:
    train(tmp_path / "whole", architecture)
    _stopped_after(tmp_path / "stopped", 20, architecture)
    train(tmp_path / "stopped", architecture)
    assert outcome(tmp_path / "stopped") == outcome(tmp_path / "whole")
