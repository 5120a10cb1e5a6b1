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
from harness.base.errors import BadInput, HarnessError
from harness.base.settings import validated
from harness.corpus import Corpus
from harness.corpus.build import build, load
from harness.corpus.chess import ChessCorpus
from harness.corpus.othello import OthelloCorpus, legal_after
from harness.metrics import tasks
from harness.systems.cost import Cost
from harness.systems.evaluation import Evaluation
from harness.systems.system import Site, System
from kernels.codes import Codes

pytestmark = pytest.mark.slow


LENGTH = 64


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("corpus")
    config = ChessCorpus(bytes_per_domain=60_000, vocab_size=300, sequence_length=LENGTH)
    build(config, folder, lambda *_, **__: None)
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
        cost=Cost(1, 1, 1.0, 1.0, 1, 1.0, 1.0, 1),
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
    # An answer of fewer tokens is likelier to it, so this also says that lengths do not give the answers away.
    for name, chance in (("tasks/chess_legal", 1 / 4), ("tasks/minimal_pairs", 1 / 2)):
        assert abs(found[name].value - chance) < 3 * math.sqrt(chance * (1 - chance) / 200)
        assert found[name].replicates.std() > 0  # pyright: ignore


def test_othello_is_asked_its_legal_moves_and_no_words(tmp_path: Path) -> None:
    build(OthelloCorpus(bytes_per_domain=20_000, sequence_length=LENGTH), tmp_path / "corpus", lambda *_, **__: None)
    games = load(tmp_path / "corpus")
    found = {m.name: m for m in tasks.measure(evaluation(games, tmp_path / "a", uniform=True), tasks.Options(limit=10))}
    assert list(found) == ["tasks/bits_per_byte_othello6", "tasks/othello_legal", "tasks/othello_legal_mass"]
    ways: list[int] = []
    for documents, n_bytes in zip(games.eval.column("document"), games.eval.column("n_bytes"), strict=True):
        for row in set(documents[n_bytes == 0].tolist()):
            legal = legal_after(games.documents[row].text)[: int((documents == row).sum())].sum(1)
            ways += legal[legal > 0].tolist()
    assert found["tasks/othello_legal_mass"].value == pytest.approx(sum(ways) / len(ways) / 257, rel=1e-5)
    assert found["tasks/othello_legal_mass"].saw == f"{len(ways):,} half-moves of games that begin in their sequence"


def test_a_documents_bits_are_the_models_own_cross_entropy_after_one_end_of_text(
    corpus: Corpus, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    subject = evaluation(corpus, tmp_path / "a")
    with torch.no_grad():
        for parameter in subject.system.model.parameters():
            parameter *= 3 if parameter.ndim > 1 else 1
    with caplog.at_level("INFO", logger="harness.metrics.tasks"):
        found = {m.name: m for m in tasks.measure(subject, tasks.Options(limit=20))}
    rows = [json.loads(line) for line in (tmp_path / "a/data/bits_per_byte_chess.jsonl").read_text().splitlines()]
    assert subject.tokenizer is not None
    end = subject.tokenizer.eos_token_id
    nats = 0.0
    for row in rows:
        ids = torch.tensor([end, *subject.tokenizer(row["text"])["input_ids"]])
        for start in range(0, len(ids) - 1, LENGTH):  # windows as long as a sequence, the last reaching back
            stop = min(start + LENGTH, len(ids) - 1)
            window = slice(max(0, stop - LENGTH), stop)
            logits = subject.system.model(ids[None, window], use_cache=False).logits[0]
            says = torch.nn.functional.cross_entropy(logits, ids[window.start + 1 : stop + 1], reduction="none")
            nats += float(says[start - window.start :].sum().detach())
    n_bytes = sum(len(row["text"].encode()) for row in rows)
    assert found["tasks/bits_per_byte_chess"].value == pytest.approx(nats / math.log(2) / n_bytes, rel=1e-5)
    assert repr(subject.tokenizer.eos_token) in caplog.text


class Neurons:
    """Reads the components of the site's output as units, and writes each back times `share`."""

    n_units = 16

    def __init__(self, share: float) -> None:
        self.share = share

    def read(self, x: torch.Tensor, rows: torch.Tensor) -> Codes:
        return Codes.from_dense(x, rows)

    def write(self, codes: Codes, x: torch.Tensor) -> torch.Tensor:
        return self.share * codes.dense()

    def rest(self, x: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(x)


def with_dictionary(corpus: Corpus, artifacts: Path, share: float) -> dict[str, float]:
    subject = evaluation(corpus, artifacts)
    with torch.no_grad():
        for parameter in subject.system.model.parameters():  # at initialisation the layer writes next to nothing
            parameter *= 3 if parameter.ndim > 1 else 1
    subject.system = System("dense+x", subject.system.model, {Site(0, "mlp_out"): Neurons(share)})  # pyright: ignore
    return {m.name: m.value for m in tasks.measure(subject, tasks.Options(limit=10))}


def test_spliced_scores_are_the_models_own_where_the_dictionary_keeps_everything(
    corpus: Corpus, tmp_path: Path
) -> None:
    found = with_dictionary(corpus, tmp_path / "a", share=1.0)
    for name in ("chess_legal", "minimal_pairs", "bits_per_byte_chess"):
        assert found[f"tasks/{name}_spliced"] == pytest.approx(found[f"tasks/{name}"], rel=1e-5)


def test_spliced_scores_feel_what_the_dictionary_leaves_out(corpus: Corpus, tmp_path: Path) -> None:
    kept, lost = (with_dictionary(corpus, tmp_path / str(share), share) for share in (1.0, 0.0))
    assert lost["tasks/bits_per_byte_chess"] == kept["tasks/bits_per_byte_chess"]
    difference = lost["tasks/bits_per_byte_chess_spliced"] - kept["tasks/bits_per_byte_chess"]
    assert abs(difference) > 1e-3


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


def test_a_task_that_lm_eval_does_not_know_is_said_in_one_line_before_anything_runs() -> None:
    with pytest.raises(BadInput, match=r"^metrics\.tasks.*lm-eval has no task 'not_a_task'"):
        validated(tasks.Options, {"tasks": ["not_a_task"]}, where="metrics.tasks")


def test_data_that_cannot_be_had_is_said_in_one_line(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_network(*_: object, **options: object) -> None:
        raise ConnectionError("no route to the hub")

    monkeypatch.setattr(tasks, "_local_scores", lambda *_: [])
    monkeypatch.setattr(tasks, "_run", without_network)
    # model_construct: reading the names that lm-eval knows takes seconds, and another test does.
    options = tasks.Options.model_construct(**{**tasks.Options().__dict__, "tasks": ("arc_easy",)})
    with pytest.raises(HarnessError, match="could not load the data of arc_easy: no route"):
        tasks.measure(evaluation(corpus, tmp_path / "a"), options)


def test_other_task_files_are_another_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tasks.Options().model_dump(mode="json")
    (tmp_path / "cloze.yaml").write_text("task: harness_cloze")
    monkeypatch.setattr(tasks, "TEMPLATES", tmp_path)
    assert tasks.Options().model_dump(mode="json") != before


def test_a_folder_without_examples_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="holds no examples"):
        tasks.local_names(tmp_path)
