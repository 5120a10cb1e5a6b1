"""What `harness plan` says of time, before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from harness.experiment.budget import size_of
from harness.experiment.rows import SubjectSpec
from harness.experiment.schema import load
from harness.run import estimate
from harness.run.estimate import RowEstimate, _teacher_forward_flops, estimates
from harness.run.numerics import Numerics
from harness.run.plan import Plan, make_plan
from harness.store.stages import Store

SMALL = {"d_model": 32, "n_layers": 2, "n_heads": 2}
TOPK = {"n_latents": 128, "k": 8}
SYSTEMS = {
    "dense[untrained=true]": SMALL,
    "dense[untrained=true]+topk": TOPK,
    "dense[untrained=true]+topk[objective=end_to_end]": TOPK,
    "dense[d_model=64]": {"n_layers": 2, "n_heads": 2},
}


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    file = tmp_path / "mine.yaml"
    written = {
        "corpus": {"vocab_size": 400, "sequence_length": 64},
        "systems": SYSTEMS,
        "metrics": ["loss"],
        "training": {"tokens": 20_480},
        "dictionary_training": {"train_tokens": 10_240, "batch_tokens": 1024, "buffer_tokens": 4096},
    }
    file.write_text(yaml.safe_dump(written, sort_keys=False))
    monkeypatch.setattr(estimate, "_step_seconds", lambda *_: 0.5)  # of 8 x 64 tokens
    return make_plan(load(str(file)), Numerics("cpu", "float32", 1))


def estimated(plan: Plan, tmp_path: Path) -> dict[str, RowEstimate]:
    return estimates(plan, Store(tmp_path / "store"))


def test_dictionaries_of_an_untrained_subject_go_at_its_own_timed_speed(plan: Plan, tmp_path: Path) -> None:
    found = estimated(plan, tmp_path)
    assert found["dense[untrained=true]"].seconds == 0
    lines = {line.spec.name: line.budget for line in plan.matching.lines}
    size = lines["dense[untrained=true]"].size
    speed = (3 * size.forward_flops * 8 * 64 + size.step_flops) / 0.5
    for row in list(SYSTEMS)[1:3]:
        expected = (lines[row].collecting_flops + lines[row].dictionary_flops) / speed
        assert found[row].seconds == pytest.approx(expected)
        assert found[row].source == "timed"
    assert found["dense[d_model=64]"].seconds == pytest.approx(20_480 / (8 * 64) * 0.5)


def test_a_model_too_large_to_try_goes_at_the_speed_of_another_and_not_of_a_row_without_training(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed = estimated(plan, tmp_path)["dense[d_model=64]"]
    real = estimate.training_memory
    monkeypatch.setattr(
        estimate, "training_memory", lambda line, _: 1 << 60 if "64" in line.spec.name else real(line, _)
    )
    guessed = estimated(plan, tmp_path)["dense[d_model=64]"]
    assert guessed.source == "by FLOPs"
    sizes = {line.spec.name: line.budget.size for line in plan.matching.lines}
    of_step = {name: 3 * size.forward_flops * 8 * 64 + size.step_flops for name, size in sizes.items()}
    larger = of_step["dense[d_model=64]"] / of_step["dense[untrained=true]"]
    assert guessed.seconds == pytest.approx(timed.seconds * larger)  # the same seconds a step were timed for both


def test_a_teachers_forward_passes_cost_what_the_teacher_costs_and_not_the_student(tmp_path: Path) -> None:
    large = {"d_model": 64, "n_layers": 2, "n_heads": 2}
    student = {"d_model": 16, "n_layers": 1, "n_heads": 2, "training": {"target": {"kind": "kl", "teacher": "dense"}}}
    file = tmp_path / "mine.yaml"
    written = {"systems": {"dense": large, "peer": student}, "metrics": ["loss"], "training": {"tokens": 20_000}}
    file.write_text(yaml.safe_dump(written | {"budget": {"matched": "none"}}))
    made = make_plan(load(str(file)), Numerics("cpu", "float32", 1))
    line = next(line for line in made.matching.lines if line.spec.name == "peer")
    teacher = line.spec.subject.teacher
    assert isinstance(teacher, SubjectSpec)
    length = made.experiment.corpus.sequence_length
    training = line.spec.subject.training
    tokens = training.steps(length) * training.batch_sequences * length
    forward = size_of(teacher, made.experiment).forward_flops
    assert _teacher_forward_flops(line, made.experiment) == forward * tokens
    assert forward > 2 * size_of(line.spec.subject, made.experiment).forward_flops
