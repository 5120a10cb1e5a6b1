"""Runs that are killed end in the table of a run that was not: real processes, nothing patched."""

from __future__ import annotations

import dataclasses
import json
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness.base.errors import HarnessError
from harness.bench import faults

pytestmark = pytest.mark.slow


# The smoke experiment, smaller still: most of a run's seconds are its imports.
TINY = [
    "smoke",
    *("--set", "tracking=off"),
    *("--set", "corpus={kind: chess, bytes_per_domain: 60000, vocab_size: 300, sequence_length: 32}"),
    *("--set", "systems={dense: {d_model: 16, n_layers: 1, n_heads: 1}, dense+topk: {k: 4, n_latents: 32}}"),
    *("--set", "references=[unigram]"),
    *("--set", "metrics={loss: {}}"),
    *("--set", "training.tokens=16384"),
    *("--set", "dictionary_training.train_tokens=32768"),
    *("--set", "dictionary_training.checkpoint_every=1000"),
]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> faults.Bench:
    """One run is left alone, and beside it, to save time, one on another store is killed while it trains."""
    made = faults.Bench(TINY, tmp_path_factory.mktemp("faults"), seed=0)
    killed = made.start(made.folder / "store", made.folder / "out")
    with ThreadPoolExecutor() as pool:
        undisturbed = pool.submit(made.undisturbed)
        while killed.alive() and not list(made.folder.glob("store/work/subject-*/checkpoint/*/complete.json")):
            time.sleep(0.005)
        assert killed.stop(signal.SIGKILL) == -9
        undisturbed.result()
    return made


def test_killed_and_stopped_runs_continue_and_two_at_once_finish_with_the_same_table(bench: faults.Bench) -> None:
    store, out = bench.folder / "store", bench.folder / "out"
    stopped = bench.start(store, out)
    checkpoint = "work/dictionary-*/checkpoint/*"
    while stopped.alive() and not any(path.stat().st_size for path in store.glob(f"{checkpoint}/*/curve.jsonl")):
        time.sleep(0.005)
    assert stopped.stop(signal.SIGTERM) == 75
    assert any(line.startswith("continuing from step") for line in stopped.lines())
    assert stopped.lines()[-1] == "error: stopped while training dictionaries; run the same command to continue"
    assert list(store.glob(f"{checkpoint}/checkpoint.pt"))

    # At the start of its last moment: on a machine that has become less busy the run could be over any later.
    bench.moments[-1] = dataclasses.replace(bench.moments[-1], seconds=0.0)
    (again,) = bench.disturb(store, out, ["end"], signal.SIGKILL)
    assert (again.exit, again.stage) == (-9, "units of dense+topk, seed 0")
    both = bench.together(store)
    assert both.exits == (0, 0)
    assert both.computed_twice == []
    assert both.equal


def test_the_moments_of_a_run_are_its_stages_in_order(bench: faults.Bench) -> None:
    kinds = [moment.kind for moment in bench.moments]
    subject = ["subject", "codes", "metric", "metric"]  # its loss, and the reports of its units
    assert kinds == ["start", "corpus", "reference", *subject, "dictionary", "codes", "metric", "end"]
    assert all(moment.seconds >= 0 for moment in bench.moments)


def test_a_run_that_cannot_be_done_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=r"the undisturbed run failed: error: no experiment 'nothing'"):
        faults.Bench(["nothing"], tmp_path, seed=0).undisturbed()


def test_a_report_passes_only_when_every_fault_did_what_it_should(tmp_path: Path) -> None:
    report = faults.FaultReport(["smoke"], 9.0, [faults.Fault(1, 1, "SIGKILL", "start", 1.0, -9, resumed=True)])
    assert report.passed
    faults._write(report, tmp_path)
    assert json.loads((tmp_path / "table.json").read_text())["passed"]
    assert "| 1 | 1 | SIGKILL | 1.00 | start | -9 | – | yes |" in (tmp_path / "table.md").read_text()
    report.faults.append(faults.Fault(2, 1, "SIGTERM", "start", 1.0, -15, resumed=True))
    assert not report.passed
    del report.faults[1]
    report.together = faults.Together((0, 0), ["subject dense, seed 0"], 4, True)
    assert not report.passed
