"""`harness run smoke` as a person runs it: a process of its own, a store of its own, real text."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
import torch
import yaml

from harness import cli
from harness.base.files import ROOT
from harness.corpus.build import load as load_corpus
from harness.experiment.schema import EXPERIMENTS, load
from harness.metrics.units.reports import UnitReports
from harness.run.numerics import Numerics
from harness.run.plan import Plan, make_plan
from harness.systems.system import System
from harness.tables import folder as results
from harness.tables.table import SCHEMA_PATH
from harness.training.dictionaries import load_dictionaries

from .conftest import Ran, harness

pytestmark = pytest.mark.slow


SYSTEMS = ["unigram", "bigram", "kneser_ney", "dense", "dense+topk", "peer"]


def plan() -> Plan:
    return make_plan(load("smoke"), Numerics("cpu", "float32", 1))


def test_the_table_has_every_system_and_follows_its_schema(ran: Ran) -> None:
    found = json.loads((ran.out / "table.json").read_text())
    jsonschema.validate(found, json.loads(SCHEMA_PATH.read_text()))
    assert [row["system"] for row in found["rows"]] == SYSTEMS
    for row in found["rows"]:
        bits = row["metrics"]["loss/bits_per_byte"]
        assert bits["low"] <= bits["value"] <= bits["high"]
        assert bits["seeds"] == [bits["value"]]
    by_name = {row["system"]: row for row in found["rows"]}
    assert by_name["dense"]["metrics"]["loss/bits_per_byte"] == by_name["dense+topk"]["metrics"]["loss/bits_per_byte"]
    assert by_name["dense"]["not_applicable"]["loss/recovered"].startswith("by construction")


def test_every_row_names_the_kernels_that_ran_and_the_stages_it_comes_from(ran: Ran) -> None:
    for row in results.read(ran.out).rows:
        stages = row.provenance.stages
        assert "corpus/0" in stages
        if row.kind != "reference":
            assert set(row.provenance.kernels.values()) <= {"reference", "cpu", "gpu"}
            assert row.provenance.kernels
            assert {"subject/0", "codes/0", "loss/0"} <= set(stages)


def test_figures_config_and_texts_lie_beside_the_table(ran: Ran) -> None:
    figures = list((ran.out / "figures").glob("*.png"))
    assert len(figures) >= 3
    assert all(2_000 < figure.stat().st_size < 200_000 for figure in figures)
    with open(ran.out / "table.csv") as file:
        assert [row["system"] for row in csv.DictReader(file)] == SYSTEMS
    assert "# smoke" in (ran.out / "table.md").read_text()
    assert load(str(ran.out / "experiment.yaml")).systems == load("smoke").systems


def test_every_row_leaves_reports_of_its_units_and_the_comparison_a_page_of_them(ran: Ran) -> None:
    page = (ran.out / "units.md").read_text()
    for row in ("dense", "dense+topk", "peer"):
        found = UnitReports.load(results.details_folder(ran.out, row, 0) / "units.json")
        assert found.system == row
        assert found.units
        assert all(unit.top and unit.domains for unit in found.units)
        assert sum(bool(unit.promoted) for unit in found.units) == len(found.units)
        assert f"## `{row}`" in page
    assert len(page.splitlines()) < 200


def test_a_second_run_trains_nothing_and_gives_the_same_table(ran: Ran, tmp_path: Path) -> None:
    again = harness("run", "smoke", "--out", str(tmp_path / "out"), store=ran.store)
    assert "subject dense" not in again.stderr
    # The timings too: they are the stored ones.
    assert results.read(tmp_path / "out").rows == results.read(ran.out).rows


def test_the_same_seed_gives_the_same_table_to_the_last_digit(ran: Ran, tmp_path: Path) -> None:
    harness("run", "smoke", "--set", "tracking=off", "--out", str(tmp_path / "out"), store=tmp_path / "store")
    one, two = results.read(ran.out).without_timing(), results.read(tmp_path / "out").without_timing()
    assert one.rows == two.rows
    assert one.differences == two.differences
    assert one.provenance.corpus_hash == two.provenance.corpus_hash


def test_what_else_a_process_trained_changes_no_digit(tmp_path: Path) -> None:
    # Wide enough, on two threads, for products that MKL shares out in more than one way; a dictionary sets threads.
    few = ["--set", "corpus.sequence_length=128", "--set", "training.tokens=4096", "--set", "references=[]"]
    few += ["--set", "metrics=[loss]", "--set", "dictionary_training.train_tokens=4096", "--set", "baseline=null"]
    alone, later = tmp_path / "alone.yaml", tmp_path / "later.yaml"
    smoke = yaml.safe_load((Path(cli.__file__).parent / "experiment" / "smoke.yaml").read_text())
    wide = {"dense[d_model=192]": {"n_layers": 1}}
    alone.write_text(yaml.safe_dump({**smoke, "systems": wide}))
    small = {name: smoke["systems"][name] for name in ("dense", "dense+topk")}
    later.write_text(yaml.safe_dump({**smoke, "systems": {**small, **wide}}, sort_keys=False))
    found = []
    for file in (alone, later):
        out = tmp_path / file.stem
        harness("run", str(file), *few, "--out", str(out), store=tmp_path / f"store of {file.stem}", threads=2)
        found.append(next(row.metrics["loss/bits_per_byte"] for row in results.read(out).rows if "192" in row.system))
    assert found[0] == found[1]


def test_mlflow_has_a_parent_run_and_a_child_for_each_system_with_params_curves_and_figures(ran: Ran) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{ran.store / 'mlflow' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("smoke")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId")]
    parents = [run for run in runs if not run.data.tags.get("mlflow.parentRunId")]
    parent = min(parents, key=lambda run: run.info.start_time)  # the first invocation: other tests repeat it
    first = [run for run in children if run.data.tags["mlflow.parentRunId"] == parent.info.run_id]
    assert sorted(run.data.params["system"] for run in first) == sorted(SYSTEMS)
    assert all(run.info.status == "FINISHED" for run in [parent, *first])
    dense = next(run for run in first if run.data.params["system"] == "dense")
    losses = client.get_metric_history(dense.info.run_id, "train/loss")
    assert [point.step for point in losses] == sorted({point.step for point in losses})
    assert len(losses) > 3
    of_table = {row.system: row for row in results.read(ran.out).rows}["dense"].metrics["loss/bits_per_byte"].value
    assert dense.data.metrics["loss/bits_per_byte"] == pytest.approx(of_table, rel=1e-5)  # six digits
    artifacts = [item.path for item in client.list_artifacts(parent.info.run_id)]
    assert {"table.json", "table.md", "figures"} <= set(artifacts)


def test_explained_variance_l0_and_spliced_loss_agree_with_saelens(ran: Ran) -> None:
    """The same numbers from SAELens' own loading, encoding and explained variance, on the same activations."""
    from sae_lens import SAE
    from sae_lens.evals import ExplainedVarianceCalculator
    from transformers import AutoModelForCausalLM

    run = next(run for run in plan().rows if run.spec.name == "dense+topk")
    corpus = load_corpus(ran.store / plan().text.stage.folder)
    model = AutoModelForCausalLM.from_pretrained(ran.store / run.subject.folder / "model").eval()
    assert run.dictionary is not None
    assert run.spec.dictionary is not None
    folder = ran.store / run.dictionary.folder
    theirs = {site: SAE.load_from_disk(folder / str(site)) for site in run.spec.dictionary.sites}
    ours = System("", model, load_dictionaries(folder, run.spec.dictionary.sites, "cpu"))
    total = min(run_sequences := load("smoke").evaluation.sequences, len(corpus.eval))
    batch = corpus.eval.batch(torch.arange(total))
    assert run_sequences >= total

    variance = {site: ExplainedVarianceCalculator() for site in theirs}
    fired = dict.fromkeys(theirs, 0.0)
    text = batch.input_ids != corpus.info.end_of_text  # the tokens that count

    def see(site, x, y) -> None:
        acts = theirs[site].encode(y[text])
        variance[site].add_batch(theirs[site].decode(acts), y[text])
        coded = load("smoke").evaluation.codes_sequences
        fired[site] += float((theirs[site].encode(y[:coded][text[:coded]]) != 0).sum(1).double().mean())

    with torch.no_grad(), ours.watching(see):
        model(batch.input_ids)
    splice = {site: (lambda y, sae=sae: sae(y.flatten(0, 1)).view_as(y)) for site, sae in theirs.items()}
    with torch.no_grad(), ours.replacing(splice):
        logits = model(batch.input_ids).logits[:, :-1]
    nats = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.input_ids[:, 1:].flatten(), reduction="sum")
    bits = float(nats) / float(torch.log(torch.tensor(2.0))) / float(batch.n_bytes[:, 1:].sum())

    row = {row.system: row for row in results.read(ran.out).rows}["dense+topk"].metrics
    mean_variance = sum(found.compute() for found in variance.values()) / len(variance)
    assert row["reconstruction/explained_variance"].value == pytest.approx(mean_variance, abs=1e-4)
    assert row["sparsity/l0"].value == pytest.approx(sum(fired.values()) / len(fired), abs=1e-4)
    assert row["loss/spliced_bits_per_byte"].value == pytest.approx(bits, abs=1e-4)


def test_the_table_says_what_text_every_metric_saw(ran: Ran) -> None:
    rows = results.read(ran.out).rows
    for row in rows:
        for name, figure in row.metrics.items():
            if name.split("/")[0] in ("loss", "reconstruction", "sparsity", "usage"):
                assert figure.saw, name
    assert len({row.metrics["loss/bits_per_byte"].saw for row in rows}) == 1  # references and systems: the same text
    text = (ran.out / "table.md").read_text()
    assert f"Measured on {rows[0].metrics['loss/bits_per_byte'].saw}." in text
    assert "targets in" in text


def test_show_prints_the_table(ran: Ran) -> None:
    shown = harness("show", str(ran.out), store=ran.store).stdout
    for system in SYSTEMS:
        assert system in shown


def test_dry_run_says_what_is_stored_and_changes_nothing(ran: Ran) -> None:
    shown = harness("run", "smoke", "--dry-run", "--set", "systems.peer.k=2", store=ran.store).stdout
    assert "stored" in shown
    would = [line for line in shown.splitlines() if line.startswith("would run")]
    assert would
    assert all("peer" in line for line in would)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["run", "smok"], 2, "no experiment 'smok': did you mean smoke?"),
        (["run", "smoke", "--set", "systems.peer.kk=2"], 2, "systems.peer.kk: unknown key"),
        (["run", "smoke", "--device", "tpu"], 2, "--device 'tpu'"),
        (["run", "smoke", "--dtype", "bfloat16"], 2, "--dtype 'bfloat16': only on a GPU"),
        (["run", "smoke", "--seeds", "0"], 2, "Invalid value for '--seeds'"),
        (["list", "metricks"], 2, "did you mean metrics?"),
        (["show", "nowhere"], 2, "no results folder nowhere"),
        (["fly"], 2, "No such command 'fly'"),
    ],
)
def test_bad_input_ends_with_2_and_one_line(
    arguments: list[str], code: int, says: str, tmp_path: Path, in_process: Callable[..., tuple[int, str]]
) -> None:
    ended, said = in_process(*arguments, store=tmp_path)
    assert ended == code
    assert says in said
    assert "Traceback" not in said


def test_the_command_itself_ends_so_too(tmp_path: Path) -> None:
    done = harness("run", "smok", store=tmp_path, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: no experiment 'smok': did you mean smoke?")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("kind", ["systems", "metrics", "corpora", "judges", "experiments"])
def test_list_names_what_an_experiment_may_use(
    kind: str, tmp_path: Path, in_process: Callable[..., tuple[int, str]]
) -> None:
    expected = {"systems": "SUBJECT+topk", "metrics": "sparsity", "corpora": "installed", "judges": "openai"}
    expected |= {"experiments": "quickstart"}
    code, said = in_process("list", kind, store=tmp_path)
    assert code == 0
    assert expected[kind] in said


def test_results_of_other_settings_are_not_written_over_unasked(ran: Ran, in_process, tmp_path: Path) -> None:
    out = tmp_path / "kept"
    shutil.copytree(ran.out, out)
    before = (out / "table.json").read_bytes()
    other = ("run", "smoke", "--out", str(out), "--set", "evaluation.resamples=100")
    code, said = in_process(*other, store=ran.store)
    assert code == 2
    assert "--replace" in said
    assert (out / "table.json").read_bytes() == before
    code, _ = in_process(*other, "--replace", store=ran.store)
    assert code == 0
    assert (out / "table.json").read_bytes() != before


def test_results_go_where_git_does_not_look_unless_asked(
    ran: Ran, in_process, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _ = in_process("run", "smoke", store=ran.store)
    assert code == 0
    assert (tmp_path / "results/local/smoke/table.json").is_file()
    ignored = subprocess.run(["git", "check-ignore", "-q", "results/local/smoke/table.json"], cwd=ROOT)
    assert ignored.returncode == 0


def test_a_store_and_a_results_folder_that_cannot_be_written_are_bad_input_alike(in_process, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    code, said = in_process("run", "smoke", "--out", str(tmp_path / "out"), store=file / "store")
    assert code == 2
    assert "cannot write to the store" in said
    code, said = in_process("run", "smoke", "--out", str(file / "out"), store=tmp_path / "store")
    assert code == 2
    assert "--out" in said


def test_a_metric_that_raises_costs_its_own_figures_and_never_the_table(ran: Ran, tmp_path: Path) -> None:
    metric = (
        "from harness.base.settings import Strict\nfrom harness.metrics.metric import register\n"
        "from harness.tables.measurement import Measurement\n"
    )
    raising = "def measure(e, o):\n    raise ValueError('no\\nsuch unit')\nregister('raising', measure, Strict, 1)\n"
    (tmp_path / "raising.py").write_text(metric + raising)
    taking = "def measure(e, o):\n    return [Measurement('loss/bits_per_byte', 0.0, '', 'lower', 1)]\n"
    (tmp_path / "taking.py").write_text(metric + taking + "register('taking', measure, Strict, 1)\n")
    info = tmp_path / "two_metrics-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: two-metrics\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[harness.metrics]\nraising = raising\ntaking = taking\n")
    smoke = yaml.safe_load((EXPERIMENTS / "smoke.yaml").read_text())
    smoke |= {"name": "two", "metrics": ["loss", "raising", "taking"], "systems": {"dense": smoke["systems"]["dense"]}}
    smoke["evaluation"] |= {"sequences": 100_000}  # more than there are
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(smoke | {"references": [], "tracking": "off"}))
    command = [sys.executable, "-m", "harness.cli", "run", str(tmp_path / "two.yaml"), "--out", str(tmp_path / "out")]
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "HARNESS_STORE": str(ran.store), "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    (row,) = results.read(tmp_path / "out").rows
    assert math.isfinite(row.metrics["loss/bits_per_byte"].value)
    assert row.metrics["loss/bits_per_byte"].value > 0
    assert "no such unit" in row.not_applicable["raising/failed"]
    assert "'loss/bits_per_byte'" in row.not_applicable["taking/failed"]
    # Nothing of a metric that nobody asked for, and the row says that it saw fewer sequences than it was asked to.
    assert {name.split("/")[0] for name in row.not_applicable} == {"loss", "raising", "taking"}
    assert any(note.startswith("evaluation: 100,000 sequences asked for, ") for note in row.notes)


def test_ctrl_c_says_how_to_go_on(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "harness.cli", "run", "smoke", "--out", str(tmp_path / "out"), "--fresh"]
    environment = {**os.environ, "HARNESS_STORE": str(tmp_path / "store"), "OMP_NUM_THREADS": "1"}
    # A suite started in the background ignores Ctrl-C, and a child inherits that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    finally:
        signal.signal(signal.SIGINT, before)
    with process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("corpus"):
                break
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
    assert process.returncode == 130
    assert said.rstrip().endswith("stopped; run the same command to continue")
    assert "Traceback" not in said
