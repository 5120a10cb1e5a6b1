"""One of each kind of thing that can be added, each exactly one file in another package, in one comparison."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from harness.tables import folder as results

pytestmark = pytest.mark.slow


ROOT = Path(__file__).resolve().parents[3]
# Entry-point group → what the one file says.
FILES = {
    # The adapter that README.md prints, as it stands there.
    "harness.systems": (ROOT / "README.md").read_text().split("```python\n")[1].split("```")[0],
    "harness.dictionaries": '''
"""TopK that keeps twice as many."""

from dataclasses import dataclass, replace

from saes.registry import register
from saes.topk import TopKConfig, TrainingTopK


@dataclass(frozen=True, kw_only=True)
class DoubleConfig(TopKConfig):
    def build(self, shape, generator):
        doubled = TopKConfig(n_latents=self.n_latents, k=2 * self.k, dead_after_tokens=self.dead_after_tokens)
        return TrainingTopK(doubled, shape, generator)


register("toy_double", DoubleConfig)
''',
    "harness.metrics": '''
"""How many sites a system has."""

from harness.base.settings import Strict
from harness.metrics.metric import register
from harness.tables.measurement import Measurement


class Options(Strict):
    factor: float = 1.0


def measure(evaluation, options):
    return [Measurement("toy_sites/count", options.factor * len(evaluation.system.sites), "", "none", 1)]


register("toy_sites", measure, Options, version=1)
''',
    "harness.corpora": '''
"""Counting, in words."""

from typing import Literal

from harness.corpus import Document, Source
from harness.corpus.config import CorpusConfig, register

WORDS = "zero one two three four five six seven eight nine".split()


class CountingCorpus(CorpusConfig):
    kind: Literal["toy_counting"] = "toy_counting"
    numbers: int = 400

    def sources(self):
        return {"counting": [Source(str(n), lambda n=n: [_document(n)]) for n in range(self.numbers)]}


def _document(n):
    text = " ".join(WORDS[int(digit)] for digit in str(7919 * (n + 1)) * 3) + f" is {n}."
    return Document(str(n), "counting", text, str(n))


register("toy_counting", CountingCorpus)
''',
    "harness.judges": '''
"""Always says yes."""

from typing import Literal

from harness.metrics.autointerp.judge import ChatOptions, register
from harness.metrics.autointerp.replies import Reply


class YesOptions(ChatOptions):
    kind: Literal["toy_yes"] = "toy_yes"

    def open(self):
        return YesJudge()


class YesJudge:
    scores_options = True

    def ask(self, requests):
        said = Reply("Explanation: digits")
        return [Reply(logprobs=(0.0, -5.0)) if request.options else said for request in requests]

    def close(self):
        pass


register("toy_yes", YesOptions)
''',
}

EXPERIMENT = """
name: toys
corpus:
  {kind: toy_counting, bytes_per_domain: 40_000, vocab_size: 300, sequence_length: 32, shares: [0.7, 0.1, 0.2]}
budget: {matched: none}
training: {tokens: 4_096, batch_sequences: 16}
dictionary_training: {train_tokens: 4_096, batch_tokens: 256}
evaluation: {sequences: 32, codes_sequences: 32, resamples: 100}
tracking: "off"
systems:
  square: {d_model: 16, n_layers: 1, n_heads: 1, width: 20}
  square+toy_double: {k: 2, n_latents: 32, dead_after_tokens: 2_048}
metrics:
  loss: {}
  sparsity: {}
  toy_sites: {factor: 3}
  autointerp: {judge: {kind: toy_yes}, units: 6, scorers: [detection], least: 2, explain: 4, explain_silent: 4,
    score: 4, score_silent: 4, near_misses: 2}
"""


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five packages of one file each."""
    folder = tmp_path_factory.mktemp("toys")
    for group, code in FILES.items():
        (name,) = {line.split('"')[1] for line in code.splitlines() if line.startswith("register(")}
        (folder / f"{name}_file.py").write_text(code)
        info = folder / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {name}_file\n")
    (folder / "toys.yaml").write_text(EXPERIMENT)
    return folder


def harness(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "HARNESS_STORE": str(folder / "store"), "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    command = [sys.executable, "-m", "harness.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.fixture(scope="module")
def out(toys: Path) -> Path:
    done = harness(toys, "run", str(toys / "toys.yaml"), "--out", str(toys / "out"))
    assert done.returncode == 0, done.stderr
    return toys / "out"


def test_one_file_adds_an_architecture_a_dictionary_a_metric_a_corpus_or_a_judge(out: Path) -> None:
    native, dictionary = results.read(out).rows
    assert native.metrics["toy_sites/count"].value == 3
    assert 0 < native.metrics["loss/bits_per_byte"].value < 8
    assert 0 < native.metrics["sparsity/l0"].value <= 20
    assert 2 < dictionary.metrics["sparsity/l0"].value <= 4
    # A judge that always says yes cannot tell where a unit fires from where it does not.
    for row in (native, dictionary):
        assert row.metrics["autointerp/detection_balanced_accuracy"].value == pytest.approx(0.5)
        assert row.metrics["autointerp_controls/detection_usable"].value == 0
    written = yaml.safe_load((out / "experiment.yaml").read_text())
    assert written["corpus"]["numbers"] == 400
    assert written["metrics"]["autointerp"]["judge"] == {"kind": "toy_yes"}


def test_what_was_added_is_listed_with_what_its_file_says(toys: Path) -> None:
    for kind, line in {
        "systems": "subject: A layer of squared neurons",
        "metrics": "How many sites a system has",
        "corpora": "Counting, in words",
        "judges": "Always says yes",
    }.items():
        assert line in harness(toys, "list", kind).stdout


def test_a_change_of_an_added_file_makes_what_it_computes_anew(toys: Path, out: Path) -> None:
    def computed() -> list[str]:
        said = harness(toys, "run", str(toys / "toys.yaml"), "--dry-run").stdout
        return [line.strip() for line in said.splitlines() if "toy_sites of" in line and "stored" not in line]

    assert not computed()
    file = toys / "toy_sites_file.py"
    file.write_text(file.read_text().replace("options.factor *", "2 * options.factor *"))
    assert len(computed()) == 2
