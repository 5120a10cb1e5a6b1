"""A run with every kind of target, trials, an untrained control and a scaling curve: it takes what the plan said."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from harness.base.errors import BadInput
from harness.experiment.schema import load
from harness.run import comparison
from harness.run.numerics import Numerics
from harness.run.plan import Plan, make_plan
from harness.run.search import FIRST_SEED, made_trials
from harness.store.stages import Store
from harness.tables import table

pytestmark = pytest.mark.slow


EXPERIMENT = """
description: Every way to train, at a size that says nothing.
corpus: {kind: chess, bytes_per_domain: 60_000, vocab_size: 300, sequence_length: 32, plies: 40}
systems:
  dense: {d_model: 16, n_layers: 1, n_heads: 2}
  dense[d_model=8]: {n_layers: 1, n_heads: 2, training: {tokens: 2048}}
  dense[d_model=32]: {n_layers: 1, n_heads: 2, training: {tokens: 8192}}
  dense-relu:
    {d_model: 16, n_layers: 1, n_heads: 2, training: {target: {kind: kl, teacher: dense, temperature: 2, alpha: 0.5}}}
  peer:
    d_model: 16
    n_layers: 1
    n_heads: 2
    n_experts: 64
    heads: 2
    k: 4
    d_key: 8
    training: {target: {kind: floor, teacher: dense, delta: 0.1}, sparsity: {kind: target_l0, weight: 1, l0: 3}}
  moex: {d_model: 16, n_layers: 1, n_heads: 2, n_experts: 4, activation: gelu, upcycle: dense}
  dense[untrained=true]: {d_model: 16, n_layers: 1, n_heads: 2}
metrics: [loss, cost]
scaling: ["dense[d_model=8]", dense, "dense[d_model=32]"]
budget: {amount: 4.0e8}
search:
  share: 0.2
  seeds: 2
  rates: [0.5, 1, 1.0e+9]
  shapes:
    dense-relu: [{d_ff: 64}, {d_ff: 16}]
    peer: [{k: 4}, {k: 2}]
training: {tokens: 4096, batch_sequences: 8, log_every: 2, checkpoints: 1}
evaluation: {sequences: 16, codes_sequences: 4, resamples: 100}
tracking: off
"""


@dataclass(frozen=True)
class Ran:
    file: Path
    store: Path
    plan: Plan
    table: table.Table

    def row(self, name: str) -> table.Row:
        return next(row for row in self.table.rows if row.system == name)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("ways")
    file = folder / "ways.yaml"
    file.write_text(EXPERIMENT)
    experiment, numerics = load(str(file)), Numerics("cpu", "float32", torch.get_num_threads())
    store = Store(folder / "store")
    open_plan = make_plan(experiment, numerics, made_trials(store))
    assert not open_plan.decided
    found = comparison.run(open_plan, store, folder / "out")
    return Ran(file, folder / "store", make_plan(experiment, numerics, made_trials(store)), found)


def test_every_row_took_the_flops_that_the_plan_said(ran: Ran) -> None:
    for line in ran.plan.matching.lines:
        metrics = ran.row(line.spec.name).metrics
        assert metrics["cost/training_flops"].value == pytest.approx(line.budget.training_flops, rel=1e-9)
        assert metrics["cost/training_tokens"].value == line.budget.tokens
        assert metrics["cost/parameters"].value == line.budget.size.parameters
        if line.budget.tokens:
            choice = ran.plan.choices[line.spec.name]
            assert metrics["search/training_flops"].value == choice.flops
            # What diverges costs less than was planned.
            assert 0.5 * choice.planned_flops < choice.flops <= choice.planned_flops


def test_the_table_says_what_is_matched_and_how_each_row_was_trained(ran: Ran) -> None:
    assert (ran.table.provenance.matched or "").startswith("training_flops ")
    matched = [ran.row(name).metrics["cost/training_flops"].value for name in ("dense-relu", "peer", "moex")]
    assert max(matched) / min(matched) < 1.04
    assert "target kl, teacher dense" in ran.row("dense-relu").notes
    assert any(note.startswith("floor ") for note in ran.row("peer").notes)
    assert "untrained" in ran.row("dense[untrained=true]").notes
    assert any(note.startswith("chosen on dev by 6 trials") for note in ran.row("dense").notes)
    assert any(note.startswith("chosen on dev by 8 trials") for note in ran.row("peer").notes)
    assert "teacher/0" in ran.row("peer").provenance.stages
    assert "- matched: training_flops" in (ran.file.parent / "out" / "table.md").read_text()


def test_the_scaling_curve_gives_dense_equivalent_compute_to_every_trained_row(ran: Ran) -> None:
    for row in ran.table.rows:
        trained = row.system != "dense[untrained=true]"
        assert ("scaling/dense_equivalent_flops" in row.metrics) == trained
    middle = ran.row("dense").metrics["scaling/dense_equivalent_ratio"]
    assert 0.2 < middle.value < 5  # a point of the curve lies near the line


def test_the_candidate_with_the_least_dev_loss_is_trained_and_one_that_diverged_has_lost(ran: Ran) -> None:
    assert ran.plan.decided
    shape, rates = ran.plan.choices["peer"].rounds
    losses = [tried.dev for tried in shape.tried]
    assert losses.index(min(losses)) == shape.taken
    assert [len(tried.outcomes) for tried in shape.tried] == [2, 2]
    assert math.isinf(rates.tried[2].dev)
    run = next(run for run in ran.plan.rows if run.spec.name == "peer")
    assert run.spec.subject.settings["k"] == (4, 2)[shape.taken]
    written = [json.loads(line)["lr"] for line in (ran.store / run.subject.folder / "curve.jsonl").open()]
    # What the curve shows is the rate of the matrices, at the end of its rise.
    assert max(written) == pytest.approx(0.04 * (0.5, 1)[rates.taken])


def test_a_trial_gets_its_share_of_what_the_row_gets_and_none_of_the_tables_seeds(ran: Ran) -> None:
    mine = [trial for trial in ran.plan.trials if trial.spec.name == "peer"]
    for trial in mine:
        assert trial.flops == pytest.approx(0.2 * 4e8, rel=0.1)  # a few batches
        assert trial.trained.seed >= FIRST_SEED
        assert trial.spec.subject.training.target.kind == "ce"
    assert len({trial.stage.key for trial in mine}) == 8  # two shapes, two rates more, two seeds each


def test_an_upcycled_subject_starts_from_its_dense_row_and_says_so(ran: Ran) -> None:
    run = next(run for run in ran.plan.rows if run.spec.name == "moex")
    dense = next(run for run in ran.plan.rows if run.spec.name == "dense")
    assert "upcycled from dense, whose training is counted" in ran.row("moex").notes
    assert ran.row("moex").provenance.stages["upcycled from/0"] == dense.subject.key
    first = {}
    for name, folder in (("moex", run.subject.folder), ("dense", dense.subject.folder)):
        first[name] = json.loads((ran.store / folder / "curve.jsonl").open().readline())["loss"]
    assert first["moex"] < first["dense"] - 0.2  # it goes on where the dense model ended


def test_the_plan_is_printed_before_anything_is_trained_and_knows_stored_speeds(ran: Ran) -> None:
    before = sorted(ran.store.rglob("*"))
    environment = {**os.environ, "HARNESS_STORE": str(ran.store), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    # One subject that is not stored, and its students.
    command = [sys.executable, "-m", "harness.cli", "plan", str(ran.file), "--set", "systems.dense.d_ff=72"]
    shown = subprocess.run(command, capture_output=True, text=True, env=environment, check=True, timeout=300).stdout
    lines = {line.split()[0]: line for line in shown.splitlines() if line.strip()}
    assert "a point of the scaling curve" in lines["dense[d_model=8]"]
    assert "to match training_flops" in lines["peer"] + lines["dense-relu"]
    assert "matched: training_flops" in shown
    assert "stored runs: dense[d_model=8], dense[d_model=32]" in shown
    assert "from two training steps timed now: dense, " in shown
    assert sorted(ran.store.rglob("*")) == before


def test_a_teacher_from_elsewhere_needs_the_corpuss_tokenizer(ran: Ran, tmp_path: Path) -> None:
    run = next(run for run in ran.plan.rows if run.spec.name == "dense")
    folder = ran.store / run.subject.folder / "model"
    target = {"kind": "kl", "teacher": f"hf:{folder}"}
    override = f"systems.dense-relu.training={json.dumps({'target': target})}"
    numerics = Numerics("cpu", "float32", torch.get_num_threads())
    rows = ["budget.matched=none", "search=null", "scaling=[]"]
    taught = make_plan(load(str(ran.file), [override, *rows]), numerics)
    student = next(run for run in taught.rows if run.spec.name == "dense-relu")
    assert student.trained.teacher == folder
    found = comparison.run(taught, Store(ran.store), tmp_path / "out")
    notes = next(row for row in found.rows if row.system == "dense-relu").notes
    assert any("the teacher's own training is not counted" in note for note in notes)
    other = make_plan(load(str(ran.file), [override, *rows, "corpus.vocab_size=290"]), numerics)
    with pytest.raises(BadInput, match=r"teacher .* has another tokenizer"):
        comparison.run(other, Store(tmp_path / "store"), tmp_path / "other")
    assert not list((tmp_path / "store").glob("subject/*"))  # before any training
