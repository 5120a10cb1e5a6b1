"""A store of its own for every test, and a small comparison to send to it."""

from __future__ import annotations

import json
import shutil
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.tables.build import SeedResult, build
from harness.tables.folder import write
from harness.tables.measurement import Measurement
from harness.tables.table import Hardware, Provenance, RowProvenance, Table
from harness.tracking.database import local_uri
from harness.tracking.runs import Tracker, tracker

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


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
        systems = {"dense+topk[k=16]": {"k": 16}}
        return {"name": self.name, "corpus": {"kind": "installed"}, "systems": systems, **self.rest}


@dataclass(frozen=True)
class Given:
    """What tests of tracking share: a comparison called `quick`, and what MLflow has of it."""

    store: Path
    corpus: Corpus = field(default_factory=Corpus)

    def tracker(self, **rest: Any) -> Tracker:
        return tracker(Experiment(rest=rest), self.store)

    def client(self) -> MlflowClient:
        from mlflow import MlflowClient

        return MlflowClient(local_uri(self.store))

    def runs(self, name: str = "", client: MlflowClient | None = None) -> list[Run]:
        """Those whose name holds `name`, the oldest first."""
        client = client or self.client()
        experiment = client.get_experiment_by_name("quick")
        assert experiment is not None
        found = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])
        return [run for run in found if name in run.info.run_name]

    def result(self, system: str = "dense+topk[k=16]", seed: int = 0, *more: Measurement) -> SeedResult:
        found = [Measurement("loss/bits_per_byte", 1.9, "bits/byte", "lower", 1)]
        found.append(Measurement("loss/spliced_bits_per_byte", 2.0, "bits/byte", "lower", 1))
        found.append(Measurement("sparsity/l0", 100.0, "units/token", "none", 1))
        return SeedResult(system, "dictionary", seed, [*found, *more], RowProvenance(stages={"subject": "abc"}))

    def curve(self, path: Path, steps: range, **columns: float) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        of_all = {"lr": 0.1, "l0": 3.0, "units_used": 0.5, **columns}
        rows = [{"step": s, "tokens": s * 8, "loss": 1 / s, **of_all} for s in steps]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    def finished_folder(self, folder: Path, results: list[SeedResult] | None = None) -> Table:
        hardware = Hardware(cpu="x", cores=2, memory_gib=1)
        provenance = Provenance(
            commit="old", dirty=False, config_hash="cfg", corpus_hash="c" * 64, packages={}, hardware=hardware,
            threads=1, python="3", os="L", dtype="float32", device="cpu",
        )  # fmt: skip
        table = build("quick", results or [self.result(seed=seed) for seed in (0, 1)], provenance, None)
        write(table, folder)
        (folder / "figures").mkdir(exist_ok=True)
        (folder / "figures" / "loss.png").write_bytes(b"png")
        (folder / "experiment.yaml").write_text("name: quick\ncorpus: {kind: installed}\n")
        return table


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated store to copy: making one takes seconds."""
    folder = tmp_path_factory.mktemp("store")
    Tracker("unused", {}, folder)
    return folder


@pytest.fixture
def given(migrated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Given:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copytree(migrated, tmp_path / "store")
    return Given(tmp_path / "store")


@pytest.fixture
def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]
