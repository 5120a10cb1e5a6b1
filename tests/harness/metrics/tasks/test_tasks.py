"""The tasks metric on a tiny model and a real corpus, and lm-eval's own command line on the same."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import models
from harness.corpus import Corpus
from harness.corpus.build import build, load
from harness.corpus.config import CorpusConfig
from harness.decomposition import System
from harness.errors import BadInput
from harness.evaluation import Cost, Evaluation
from harness.metrics import tasks

LENGTH = 64


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("corpus")
    config = CorpusConfig(kind="chess", bytes_per_domain=60_000, vocab_size=300, sequence_length=LENGTH)
    build(config, folder, lambda *_: None)
    return load(folder)


def evaluation(corpus: Corpus, artifacts: Path, uniform: bool = False) -> Evaluation:
    torch.manual_seed(0)
    settings = {"d_model": 16, "n_layers": 1, "n_heads": 1, "max_position_embeddings": LENGTH}
    end = corpus.info.end_of_text
    model = models.build("dense", **settings, vocab_size=corpus.info.vocab_size, bos_token_id=end, eos_token_id=end)
    if uniform:
        torch.nn.init.zeros_(model.lm_head.weight)
    artifacts.mkdir()
    return Evaluation(
        system=System("dense", model.eval(), None),
        split=corpus.eval,
        dev=corpus.dev,
        sequences=len(corpus.eval),
        codes_sequences=1,
        batch_sequences=8,
        resamples=50,
        load_codes=lambda site: pytest.fail("tasks need no codes"),
        cost=Cost(1, 1, 1.0, 1.0, 1, 1.0, 1),
        artifacts=artifacts,
        tokenizer=corpus.tokenizer(),
        document=corpus.documents.__getitem__,
    )


def test_a_uniform_model_pays_log_of_the_vocabulary_a_token_and_guesses(corpus: Corpus, tmp_path: Path) -> None:
    subject = evaluation(corpus, tmp_path / "a", uniform=True)
    found = {m.name: m for m in tasks.measure(subject, tasks.Options(limit=200))}
    rows = [json.loads(line) for line in (tmp_path / "a/data/bits_per_byte_chess.jsonl").read_text().splitlines()]
    tokens = sum(len(subject.tokenizer(row["text"])["input_ids"]) for row in rows)  # pyright: ignore
    n_bytes = sum(len(row["text"].encode()) for row in rows)
    expected = tokens * math.log2(corpus.info.vocab_size) / n_bytes
    assert found["tasks/bits_per_byte_chess"].value == pytest.approx(expected, rel=1e-5)
    # Equal tokens are equally likely, so an answer of fewer tokens wins: nothing is known, but lengths are not chance.
    for name in ("tasks/chess_legal", "tasks/minimal_pairs"):
        low, high = (found[name].replicates.min(), found[name].replicates.max())  # pyright: ignore
        assert low <= found[name].value <= high
        assert found[name].value < 0.75


def test_lm_evals_own_command_line_agrees_to_the_last_digit(corpus: Corpus, tmp_path: Path) -> None:
    subject = evaluation(corpus, tmp_path / "a")
    found = {m.name: m.value for m in tasks.measure(subject, tasks.Options(limit=20, batch_size=4))}
    subject.system.model.save_pretrained(tmp_path / "model")
    assert subject.tokenizer is not None
    subject.tokenizer.save_pretrained(tmp_path / "model")
    names = [f"harness_{name.removeprefix('tasks/')}" for name in found]
    command = [sys.executable, "-m", "harness.cli", "lm-eval", "--data", str(tmp_path / "a/data"), "run"]
    command += ["--model", "hf", "--model_args", f"pretrained={tmp_path / 'model'},backend=causal,max_length={LENGTH}"]
    command += [
        "--tasks",
        ",".join(names),
        "--device",
        "cpu",
        "--batch_size",
        "4",
        "--output_path",
        str(tmp_path / "o"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-2000:]
    (written,) = (tmp_path / "o").rglob("*.json")
    theirs = json.loads(written.read_text())["results"]
    for name, value in found.items():
        figures = theirs[f"harness_{name.removeprefix('tasks/')}"]
        assert figures.get("acc,none", figures.get("bits_per_byte,none")) == pytest.approx(value, abs=0, rel=1e-15)


def test_a_task_that_lm_eval_does_not_know_is_said_in_one_line(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="lm-eval has no task 'not_a_task'"):
        tasks.measure(evaluation(corpus, tmp_path / "a"), tasks.Options(tasks=("not_a_task",), limit=10))


def test_a_folder_without_examples_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="holds no examples"):
        tasks.local_names(tmp_path)
