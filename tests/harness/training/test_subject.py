"""Training of subjects: the optimiser, the curve, and a killed run that continues on it."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import models
from harness.base.errors import Diverged, HarnessError, Interrupted
from harness.base.progress import silent
from harness.base.stop import StopSignal
from harness.training import watcher
from harness.training.config import Distillation, Floor, StrengthL1, TargetStrengthL0, TrainingConfig
from harness.training.objective import dev_cross_entropy
from harness.training.optimizer import MuonAdamW, step_flops
from harness.training.order import Sequences as SequencesInOrder
from harness.training.record import TrainingRecord
from harness.training.subject import Teacher, save_untrained, train_subject

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
    per_step = step_flops(models.build(architecture, **TINY, **SMALL.get(architecture, {})))
    assert per_step > 0
    assert record.training_flops == 3 * record.forward_flops_per_token * record.tokens + record.steps * per_step
    assert record.cpu_seconds > 0
    assert not (tmp_path / "checkpoint").exists()
    reloaded = models.ARCHITECTURES[architecture].model_class.from_pretrained(tmp_path / "model")
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
sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(Path(__file__).parents[3])!r}]
import torch
torch.set_num_threads({torch.get_num_threads()})
from pathlib import Path
import harness.training.watcher as t
before = t.Watcher.on_step_end
def slowly(self, *a, **k):
    time.sleep(0.05)
    return before(self, *a, **k)
t.Watcher.on_step_end = slowly
import test_subject
test_subject.train(Path({str(tmp_path / "killed")!r}))
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
    own = 3 * taught.forward_flops_per_token * taught.tokens + taught.steps * step_flops(models.build("dense", **TINY))
    assert taught.training_flops == own + taught.teacher_flops
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
    again = models.ARCHITECTURES["dense"].model_class.from_pretrained(tmp_path / "model")
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

    class Stop(StopSignal):
        @property
        def requested(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
            curve = work / "curve.jsonl"
            return f'"step": {step},' in (curve.read_text() if curve.exists() else "")

    original, watcher.STOP = watcher.STOP, Stop()
    try:
        with pytest.raises(Interrupted) as caught:
            train(work, architecture, config, teacher)
        assert caught.value.exit_code == 75
    finally:
        watcher.STOP = original


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


@pytest.mark.parametrize("architecture", ["dense", *SMALL])
def test_rates_a_billion_times_too_high_diverge_in_every_architecture_and_say_what_they_took(
    tmp_path: Path, architecture: str
) -> None:
    with pytest.raises(Diverged, match=r"training loss became (nan|inf) at step") as caught:
        train(tmp_path, architecture, CONFIG.scaled(1e9))
    assert caught.value.training_flops > 0
    assert caught.value.tokens % (4 * 32) == 0


def test_a_training_shorter_than_a_row_of_the_curve_is_checked_at_its_end(tmp_path: Path) -> None:
    short = TrainingConfig(tokens=3 * 4 * 32, batch_sequences=4, log_every=10)
    assert 0 < (train(tmp_path / "short", config=short).final_loss or 0) < 10
    with pytest.raises(Diverged):
        train(tmp_path / "high", config=short.scaled(1e30))


@pytest.mark.parametrize(("batch", "steps"), [(64, 8), (50, 3), (3, 20), (120, 2)])
def test_the_tokens_and_flops_on_record_went_through_the_model_where_batches_do_not_divide_the_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int, steps: int
) -> None:
    seen: list[int] = []
    forward = models.TrunkForCausalLM.forward

    @functools.wraps(forward)
    def counting(self: Any, input_ids: Any = None, **kwargs: Any) -> Any:
        if self.training:
            seen.append(input_ids.numel())
        return forward(self, input_ids=input_ids, **kwargs)

    monkeypatch.setattr(models.TrunkForCausalLM, "forward", counting)
    config = TrainingConfig(tokens=steps * batch * 32 - 5, batch_sequences=batch, log_every=1, checkpoints=0)
    record = train(tmp_path, config=config)
    assert seen == [batch * 32] * steps  # full, though an epoch has 50 sequences
    assert record.tokens == sum(seen)
    optimizer = steps * step_flops(models.build("dense", **TINY))
    assert record.training_flops == 3 * record.forward_flops_per_token * sum(seen) + optimizer
    assert [row["tokens"] for row in curve_of(tmp_path)] == [batch * 32 * (step + 1) for step in range(steps)]


def test_every_epoch_takes_all_sequences_once_and_its_order_depends_on_seed_and_epoch_alone() -> None:
    split: Any = Sequences()
    ids = [tuple(order["input_ids"].tolist()) for order in SequencesInOrder(split, 130, seed=3)]
    epochs = [ids[:50], ids[50:100]]
    assert [sorted(epoch) for epoch in epochs] == [sorted(tuple(row) for row in split.ids.tolist())] * 2
    assert epochs[0] != epochs[1]
    assert len(ids) == 130
    longer = SequencesInOrder(split, 1000, seed=3)
    assert [tuple(longer[index]["input_ids"].tolist()) for index in (129, 0, 70)] == [ids[129], ids[0], ids[70]]
    assert [tuple(each["input_ids"].tolist()) for each in SequencesInOrder(split, 50, seed=4)] != ids[:50]


def test_gradients_are_clipped_and_a_trainer_that_would_not_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clipped = TrainingConfig(**{**CONFIG.model_dump(), "clip": 1e-12, "tokens": 4 * 4 * 32, "weight_decay": 0.0})
    norms: list[float] = []
    step = MuonAdamW.step

    def recording(self: MuonAdamW, closure: Any = None) -> Any:
        grads = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        norms.append(float(torch.stack([grad.norm() for grad in grads]).norm()))
        return step(self, closure)

    monkeypatch.setattr(MuonAdamW, "step", recording)
    train(tmp_path / "clipped", config=clipped)
    assert len(norms) == 4
    assert max(norms) < 1.01e-12
    assert curve_of(tmp_path / "clipped")[0]["gradient_norm"] > 0.1  # before clipping
    monkeypatch.setattr(transformers.Trainer, "_clip_grad_norm", lambda self, model: torch.ones(()))
    with pytest.raises(HarnessError, match=r"transformers \S+ no longer clips gradients"):
        train(tmp_path / "not", config=clipped)


def test_a_row_has_no_peak_memory_where_the_process_holds_what_other_rows_left(tmp_path: Path) -> None:
    assert train(tmp_path).peak_memory_bytes is None
