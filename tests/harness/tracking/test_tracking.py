import contextlib
import itertools
import json
import logging
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness.base.errors import HarnessError, Interrupted
from harness.base.files import ROOT
from harness.tables.build import SeedResult, build
from harness.tables.folder import write
from harness.tables.measurement import Measurement
from harness.tables.table import Hardware, Provenance, RowProvenance
from harness.tracking import views as tracking_views
from harness.tracking.curves import CurveTail, flat, metric_key, shortened
from harness.tracking.database import database_of, local_uri, ui_command
from harness.tracking.later import log_results
from harness.tracking.runs import Tracker, tracker

pytestmark = pytest.mark.slow


@dataclass
class Corpus:
    content_hash: str = "c" * 64
    domains: tuple[str, ...] = ("prose", "code")


@dataclass
class Experiment:
    name: str = "quick"
    tracking: str = "mlflow"
    rest: dict[str, Any] = field(default_factory=dict)

    def model_dump(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "corpus": {"kind": "installed"},
            "systems": {"dense+topk[k=16]": {"k": 16}},
            **self.rest,
        }


@pytest.fixture(scope="session")
def migrated(tmp_path_factory):
    """A migrated store to copy: making one takes seconds."""
    folder = tmp_path_factory.mktemp("store")
    Tracker("unused", {}, folder)
    return folder


@pytest.fixture
def store(migrated, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copytree(migrated, tmp_path / "store")
    return tmp_path / "store"


def client_of(store):
    from mlflow import MlflowClient

    return MlflowClient(local_uri(store))


def runs(client, name="quick"):
    experiment = client.get_experiment_by_name(name)
    return list(client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"]))


def named(client, part, name="quick"):
    return [r for r in runs(client, name) if part in r.info.run_name]


def write_curve(path, steps):
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"step": s, "tokens": s * 8, "loss": 1 / s, "lr": 0.1, "l0": 3.0, "dead_share": 0.5} for s in steps]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def result(system="dense+topk[k=16]", seed=0):
    found = [Measurement("loss/bits_per_byte", 1.9, "bits/byte", "lower", 1)]
    found.append(Measurement("loss/spliced[layer=0+1]", 2.0, "bits/byte", "lower", 1))
    return SeedResult(system, "dictionary", seed, found, RowProvenance(stages={"subject": "abc"}))


def finished_folder(folder, seeds=(0, 1)):
    hardware = Hardware(cpu="x", cores=2, memory_gib=1)
    provenance = Provenance(
        commit="old", dirty=False, config_hash="cfg", corpus_hash="c" * 64, packages={}, hardware=hardware, threads=1,
        python="3", os="L", dtype="float32", device="cpu",
    )  # fmt: skip
    table = build("quick", [result(seed=s) for s in seeds], provenance, None)
    write(table, folder)
    (folder / "figures").mkdir(exist_ok=True)
    (folder / "figures" / "loss.png").write_bytes(b"png")
    (folder / "experiment.yaml").write_text("name: quick\ncorpus: {kind: installed}\n")
    return table


def test_an_invocation_leaves_parent_child_params_curve_figures_and_corpus(store, tmp_path):
    curve = write_curve(tmp_path / "curve.jsonl", range(1, 701))
    table = finished_folder(tmp_path / "results")
    with tracker(Experiment(), store).invocation(Corpus(), "cfg") as invocation:
        with invocation.row("dense+topk[k=16]", 0, {"kind": "dictionary", "optimizer": {"lr": 0.1}}) as run:
            run.curve(curve, prefix="L1.mlp+out")
            run.finish(result())
        invocation.finish(table, tmp_path / "results")
    client = client_of(store)
    parent, child = runs(client)
    assert (parent.info.status, child.info.status) == ("FINISHED", "FINISHED")
    assert child.info.run_name == "dense+topk[k=16] seed 0"
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert child.data.params["system"] == "dense+topk[k=16]"  # full name in the value
    assert child.data.params["optimizer.lr"] == "0.1"
    assert child.data.params.keys() >= {"seed", "stage", "corpus_digest"}
    assert parent.data.params["systems.dense.topk.k.16..k"] == "16"
    assert child.data.metrics["loss/bits_per_byte"] == 1.9
    assert child.data.metrics["loss/spliced.layer.0.1."] == 2.0
    assert "train/L1.mlp.out/loss" in json.dumps(client.get_experiment(parent.info.experiment_id).tags)  # in a view
    history = client.get_metric_history(child.info.run_id, "train/L1.mlp.out/loss")
    assert [m.step for m in history] == list(range(1, 701))
    assert child.inputs.dataset_inputs[0].dataset.digest == "c" * 36
    assert '"prose"' in child.inputs.dataset_inputs[0].dataset.profile
    assert parent.data.tags["harness.config_hash"] == "cfg"
    assert "mlflow.source.git.commit" in parent.data.tags
    files = {f.path for f in client.list_artifacts(parent.info.run_id)}
    assert files == {"table.md", "table.csv", "table.json", "experiment.yaml", "figures"}
    assert (store / "mlflow" / "artifacts" / "quick").is_dir()


def test_machine_is_sampled_every_second(store):
    with (
        tracker(Experiment(), store).invocation(Corpus(), "cfg") as invocation,
        invocation.row("dense", 0, {}),
    ):
        time.sleep(2.6)
    metrics = named(client_of(store), "dense")[0].data.metrics
    assert any(key.startswith("system/") for key in metrics)


def test_failure_is_marked_with_its_traceback_and_interruption_as_killed(store):
    with pytest.raises(RuntimeError), tracker(Experiment(), store).invocation(Corpus(), "a") as invocation:  # noqa: SIM117
        with invocation.row("dense", 0, {}):
            raise RuntimeError("the wolf came")
    with pytest.raises(Interrupted), tracker(Experiment(), store).invocation(Corpus(), "b") as invocation:  # noqa: SIM117
        with invocation.row("peer", 0, {}):
            raise Interrupted("stop")
    client = client_of(store)
    failed = named(client, "dense seed")[0]
    assert failed.info.status == "FAILED"
    assert "the wolf came" in failed.data.tags["harness.traceback"]
    assert [f.path for f in client.list_artifacts(failed.info.run_id)] == ["traceback.txt"]
    assert named(client, "peer seed")[0].info.status == "KILLED"
    assert [r.info.status for r in named(client, "quick ")] == ["FAILED", "KILLED"]


CHILD = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_tracking import Corpus, Experiment, tracker
with tracker(Experiment(), Path({store!r})).invocation(Corpus(), "cfg") as invocation:
    with invocation.row("dense", 0, {{}}) as run:
        run.curve(Path({curve!r}))
        run._send_curves()
        print("ready", flush=True)
        time.sleep(60)
"""


def start(code):
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=Path.cwd())


def test_killed_run_is_reaped_and_continued_strictly_after_its_last_step(store, tmp_path):
    curve = write_curve(tmp_path / "work" / "curve.jsonl", range(1, 31))
    child = start(CHILD.format(tests=str(Path(__file__).parent), store=str(store), curve=str(curve)))
    try:
        assert child.stdout.readline() == "ready\n"
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
    client = client_of(store)
    assert {r.info.status for r in runs(client)} == {"RUNNING"}
    write_curve(curve, range(1, 21))  # training went back to its checkpoint at 20
    stored = tmp_path / "stored" / "curve.jsonl"
    with tracker(Experiment(), store).invocation(Corpus(), "cfg") as invocation:
        assert {r.info.status for r in named(client, "quick ")} == {"KILLED", "RUNNING"}
        with invocation.row("dense", 0, {}) as run:
            run.curve(curve)
            run._send_curves()
            write_curve(curve, range(1, 41))
            run._send_curves()
            write_curve(stored, range(1, 51))
            run.curve(stored)  # the work folder became a stage
            run.finish(result("dense"))
    (again,) = named(client, "dense seed")  # the same run, not a second one
    assert again.info.status == "FINISHED"
    assert again.data.tags["harness.resumed"] == "true"
    assert "harness.reaped" not in again.data.tags
    assert again.data.tags["mlflow.parentRunId"] == named(client, "quick ")[1].info.run_id
    history = client.get_metric_history(again.info.run_id, "train/loss")
    assert [m.step for m in history] == list(range(1, 51))


def test_runs_of_living_processes_and_of_other_hosts_are_not_reaped(store):
    held = tracker(Experiment(), store)
    process = psutil.Process()
    with held.invocation(Corpus(), "cfg"):
        for host, pid in (("elsewhere", "999999999"), (None, str(process.pid))):
            run = held.client.create_run(held.experiment_id, run_name=f"other {pid}")
            tags = {"harness.pid": pid, "harness.process_started": str(process.create_time())}
            for key, value in tags.items():
                held.client.set_tag(run.info.run_id, key, value)
            held.client.set_tag(run.info.run_id, "harness.host", host or os.uname().nodename)
        tracker(Experiment(), store)
        assert {r.info.status for r in runs(held.client)} == {"RUNNING"}
        held.client.set_tag(run.info.run_id, "harness.process_started", "1.0")  # the pid was used again
        tracker(Experiment(), store)
        assert client_of(store).get_run(run.info.run_id).info.status == "KILLED"


def test_two_processes_can_make_the_store_at_once(tmp_path):
    code = "from pathlib import Path; from harness.tracking.runs import Tracker; import sys; "
    code += f"sys.exit(Tracker('quick', {{}}, Path({str(tmp_path)!r})).client is None)"
    started = [start(code) for _ in range(2)]
    assert [p.wait(timeout=60) for p in started] == [0, 0]
    for p in started:
        p.stdout.close()


def test_a_kill_while_the_store_is_made_leaves_none_and_the_next_run_makes_it(tmp_path):
    code = "from pathlib import Path; from harness.tracking.runs import Tracker; "
    made = start(code + f"Tracker('quick', {{}}, Path({str(tmp_path)!r}))")
    while not list((tmp_path / "mlflow").glob("*/mlflow.db")):  # it is being made
        assert made.poll() is None
        time.sleep(0.01)
    made.kill()
    made.wait()
    made.stdout.close()
    assert not (tmp_path / "mlflow" / "mlflow.db").exists()
    assert Tracker("quick", {}, tmp_path).client is not None
    assert sorted(path.name for path in (tmp_path / "mlflow").iterdir()) == ["mlflow.db", "mlflow.db.lock"]


def test_off_costs_no_import_and_does_nothing(tmp_path):
    code = (
        "import sys, json; from pathlib import Path; sys.path.insert(0, {!r})\n"
        "import harness.tracking.runs, harness.tracking.later\n"
        "class E: name='x'; tracking='off'; model_dump=lambda self: {{}}\n"
        "class C: content_hash='c'\n"
        "with harness.tracking.runs.tracker(E(), Path({!r})).invocation(C(), 'h') as i:\n"
        "    with i.row('dense', 0, {{}}) as r: r.curve(Path('nowhere')); r.finish(None)\n"
        "    i.finish(None, Path('nowhere'))\n"
        "sys.exit('mlflow' in sys.modules)"
    ).format(str(Path.cwd()), str(tmp_path / "store"))
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert not (tmp_path / "store").exists()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_server_that_is_down_costs_one_warning_and_little_time(store, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    began = time.monotonic()
    with caplog.at_level(logging.WARNING, "harness.tracking.runs"):
        table = finished_folder(tmp_path / "results")
        with tracker(Experiment(), store).invocation(Corpus(), "cfg") as invocation:
            with invocation.row("dense", 0, {}) as run:
                run.curve(write_curve(tmp_path / "c.jsonl", range(1, 5)))
                run.finish(result())
            invocation.finish(table, tmp_path / "results")
    assert time.monotonic() - began < 10
    (warning,) = [r.getMessage() for r in caplog.records if r.name == "harness.tracking.runs"]
    assert "unreachable: results are on disk; send them later with: harness log RESULTS" in warning
    assert "\n" not in warning
    with pytest.raises(HarnessError, match="was not sent"):
        log_results(tmp_path / "results", store)


def test_broken_local_store_is_told_and_costs_no_result(store, caplog):
    (store / "mlflow" / "mlflow.db").write_bytes(b"not a database" * 100)
    with (
        caplog.at_level(logging.WARNING, "harness.tracking.runs"),
        tracker(Experiment(), store).invocation(Corpus(), "cfg"),
    ):
        pass
    assert "results are on disk" in caplog.text


@contextlib.contextmanager
def server(store):
    port = free_port()
    process = subprocess.Popen(ui_command(store, port), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while process.poll() is None:  # importing MLflow takes a minute on a busy machine
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                break
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        for part in (*psutil.Process(process.pid).children(recursive=True), process):
            with contextlib.suppress(psutil.NoSuchProcess):
                part.kill()
        process.wait()


def test_real_server_gets_everything_and_loses_nothing_when_it_dies(store, tmp_path, monkeypatch, caplog):
    """Live run, then a server that dies in the middle of one, then `harness log` against the same store."""
    from mlflow import MlflowClient

    table = finished_folder(tmp_path / "results")
    curve = write_curve(store / "subject" / "abc" / "curve.jsonl", range(1, 9))
    with caplog.at_level(logging.WARNING, "harness.tracking.runs"):
        with server(store) as uri:
            monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
            held = tracker(Experiment(), store)
            with held.invocation(Corpus(), "live") as invocation, invocation.row("dense", 0, {}) as run:
                run.curve(curve)
                run.finish(result("dense"))
            client = MlflowClient(uri)
            assert [r.info.status for r in runs(client)] == ["FINISHED", "FINISHED"]
            assert len(client.get_metric_history(named(client, "dense")[0].info.run_id, "train/loss")) == 8
            assert held.links()[0].startswith(f"{uri}/#/experiments/")
            second = tracker(Experiment(), store).invocation(Corpus(), "cfg")
            invocation = second.__enter__()
            lost = invocation.row("dense+topk[k=16]", 0, {})
            run = lost.__enter__()
        run.finish(result())
        lost.__exit__(None, None, None)
        invocation.finish(table, tmp_path / "results")
        second.__exit__(None, None, None)
    assert len([r for r in caplog.records if r.name == "harness.tracking.runs"]) == 1
    assert "unreachable" in caplog.text


def test_log_sends_a_results_folder_once_with_its_stored_curves(store, tmp_path):
    finished_folder(tmp_path / "results")
    write_curve(store / "subject" / "abc" / "curve.jsonl", range(1, 9))
    assert "was sent to" in log_results(tmp_path / "results", store)
    client = client_of(store)
    assert [r.info.status for r in runs(client)] == ["FINISHED"] * 3
    children = named(client, "dense+topk")
    assert sorted(r.data.params["seed"] for r in children) == ["0", "1"]
    assert children[0].data.metrics["loss/bits_per_byte"] == 1.9
    assert len(client.get_metric_history(children[0].info.run_id, "train/loss")) == 8
    parent = named(client, "quick ")[0]
    assert parent.data.tags["mlflow.source.git.commit"] == "old"
    assert "already; nothing was sent" in log_results(tmp_path / "results", store)
    assert len(runs(client)) == 3


def test_results_of_a_tracked_run_are_not_sent_again(store, tmp_path):
    table = finished_folder(tmp_path / "results")
    with tracker(Experiment(), store).invocation(Corpus(), "cfg") as invocation:
        invocation.finish(table, tmp_path / "results")
    assert "already" in log_results(tmp_path / "results", store)


def views_state(found, number):
    return json.loads(next(v for v in found.values() if v["name"] == tracking_views.NAMES[number])["state"])


def test_views_are_written_for_seen_versions_only(store, tmp_path, monkeypatch):
    import mlflow

    held = tracker(Experiment(), store)
    monkeypatch.setattr(mlflow, "__version__", "4.0.0")
    tracking_views.write(held.client, held.experiment_id, {"loss/bits_per_byte"})
    prefix = "mlflow.sharedViewState."

    def views():
        tags = held.client.get_experiment(held.experiment_id).tags
        return {key: json.loads(value) for key, value in tags.items() if key.startswith(prefix)}

    assert views() == {}
    monkeypatch.setattr(mlflow, "__version__", "3.17.2")
    for _ in range(2):
        tracking_views.write(
            held.client, held.experiment_id, {"loss/bits_per_byte", "train/loss", "train/0.mlp/loss", "train/0.mlp/l0"}
        )
    found = views()
    assert sorted(v["name"] for v in found.values()) == sorted(tracking_views.NAMES)
    assert held.links()[0].split("viewStateShareKey=")[1].split("&")[0] in {key.removeprefix(prefix) for key in found}
    state = views_state(found, 0)
    assert state["compareRunCharts"][0]["xaxis"]["key"] == "sparsity/strength_l0_total"
    assert views_state(found, 3)["compareRunCharts"][0]["selectedMetricKeys"] == ["train/0.mlp/loss", "train/loss"]
    assert state["groupBy"]["groupByKeys"] == [{"mode": "param", "groupByData": "system"}]


def test_curve_tail_reads_whole_lines_once_and_never_a_step_twice(tmp_path):
    path = tmp_path / "curve.jsonl"
    tail = CurveTail(path, "train", last_step=2)
    assert tail.rows() == []  # not there yet
    path.write_text('{"step": 1}\n{"step": 3}\n{"step": 4')
    assert [r["step"] for r in tail.rows()] == [3]
    with path.open("a") as file:
        file.write('}\n{"step": 5}\n')
    assert [r["step"] for r in tail.rows()] == [4, 5]
    path.write_text('{"step": 1}\n')  # cut back
    assert tail.rows() == []
    path.write_text('{"step": 1}\n{"step": 5}\n{"step": 6}\n')
    assert [r["step"] for r in tail.rows()] == [6]


def test_batches_never_cut_a_step(tmp_path):
    tail = CurveTail(write_curve(tmp_path / "c.jsonl", range(1, 902)), "train")
    batches = list(tail.batches())
    assert all(len(b) <= 1000 for b in batches)
    assert all({m.step for m in a}.isdisjoint({m.step for m in b}) for a, b in itertools.pairwise(batches))
    assert sum(len(b) for b in batches) == 901 * 5


def test_keys_and_params_are_what_mlflow_accepts():
    assert metric_key("loss/dense+topk[k=16]") == "loss/dense.topk.k.16."
    assert flat({"a": {"b": [1, 2]}, "c+": None, "e": {}}) == {"a.b": "[1, 2]", "c.": "null", "e": "{}"}


@pytest.mark.parametrize(
    ("uri", "file"),
    [
        ("sqlite:////a/b.db", "/a/b.db"),
        ("sqlite:////a/b.db?timeout=5", "/a/b.db"),
        ("sqlite+pysqlite:////a/b.db", "/a/b.db"),
        ("sqlite:///:memory:", None),
        ("sqlite://", None),
        ("http://127.0.0.1:5000", None),
        ("postgresql:///runs", None),
    ],
)
def test_the_file_of_a_tracking_uri(uri: str, file: str | None) -> None:
    assert database_of(uri) == (None if file is None else Path(file))


def test_a_database_of_ones_own_is_made_whole_by_the_first_of_several_and_keeps_its_artifacts_beside_it(tmp_path):
    uri = f"sqlite:///{tmp_path / 'mine' / 'runs.db'}"
    (tmp_path / "elsewhere").mkdir()
    code = (
        "import os; from pathlib import Path; from harness.tracking.runs import Tracker; "
        f"os.chdir({str(tmp_path / 'elsewhere')!r}); t = Tracker('quick', {{}}, Path({str(tmp_path / 'store')!r})); "
        "e = t.client.get_experiment(t.experiment_id); print(e.artifact_location)"
    )
    environment = {**os.environ, "MLFLOW_TRACKING_URI": uri, "PYTHONPATH": str(ROOT)}
    starts = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(3)
    ]
    said = {process.communicate(timeout=120)[0].strip() for process in starts}
    assert [process.returncode for process in starts] == [0, 0, 0]
    assert said == {(tmp_path / "mine" / "artifacts" / "quick").as_uri()}
    assert not list((tmp_path / "elsewhere").iterdir())
    assert not (tmp_path / "store" / "mlflow" / "mlflow.db").exists()


def test_a_very_long_row_name_keeps_tracking_on(tmp_path):
    name = "dense+topk[" + ",".join(f"layers=[{n}]" for n in range(40)) + "]"
    assert len(name) > 300
    held = tracker(Experiment(rest={"systems": {name: {"lr": 1}, f"{name}x": {"lr": 2}}}), tmp_path)
    figures = [Measurement(f"of {name}/value", 1.0, "", "none", 1)]
    with held.invocation(Corpus(), "cfg") as invocation:
        with invocation.row(name, 0, {"kind": "dictionary"}) as run:
            run.finish(SeedResult(name, "dictionary", 0, figures, RowProvenance()))
        parent = invocation.run_id
    assert held.client is not None
    params = held.client.get_run(parent).data.params
    # Each of the two rows kept its settings, under keys that differ.
    assert sorted(value for key, value in params.items() if key.startswith("systems")) == ["1", "2"]
    assert shortened(name) != shortened(name + "x")
    runs = held.client.search_runs([held.experiment_id])
    (run,) = [run for run in runs if run.data.params.get("system", "").startswith("dense+topk")]
    assert run.data.tags["mlflow.runName"].startswith("dense+topk[layers=[0]")


def test_thousands_of_figures_and_figures_that_are_not_finite_keep_tracking_on(tmp_path):
    figures = [Measurement(f"joint/figure_{n}", float(n), "", "none", 1) for n in range(2_500)]
    figures += [Measurement(f"joint/broken_{n}", value, "", "none", 1) for n, value in enumerate([math.nan, math.inf])]
    held = tracker(Experiment(), tmp_path)
    params = {"kind": "subject", "long": "x" * 20_000}
    with held.invocation(Corpus(), "cfg") as invocation, invocation.row("dense", 0, params) as run:
        run.finish(SeedResult("dense", "subject", 0, figures, RowProvenance()))
    assert held.client is not None
    metrics = held.client.get_run(run.run_id).data.metrics
    assert metrics[metric_key("joint/figure_2499")] == 2499.0
    assert sum(name.startswith("joint") for name in metrics) == 2_500
