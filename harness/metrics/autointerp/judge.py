"""Who answers the questions of auto-interpretation: what a judge is, and how one is chosen.

A judge takes chat messages and gives back text or the log-probabilities of given options. What it says is untrusted:
the protocols (llm_explainer.py, llm_scorers.py) parse it strictly and count what does not parse.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from harness.base.errors import HarnessError
from harness.base.files import ROOT
from harness.base.settings import Strict
from harness.metrics.autointerp.replies import Replies, Reply

log = logging.getLogger(__name__)


class JudgeError(HarnessError):
    """The judge cannot be asked, or does not answer. What it answered before is kept."""


@dataclass(frozen=True)
class Message:
    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
class Request:
    """One question. options: the answers to choose from, for a judge with `scores_options`; without any, a text of at
    most `max_tokens` tokens is wanted."""

    messages: tuple[Message, ...]
    max_tokens: int = 256
    options: tuple[str, ...] = ()

    def key(self) -> str:
        """SHA-256 of all that determines the reply, besides the judge."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


class Judge(Protocol):
    """Answers requests, in their order, however many at once it can. Threads may share one judge.

    scores_options: it gives log-probabilities of options; asked for a text, any judge gives a text.
    Raises JudgeError when a request stays without an answer; replies that came before are kept.
    """

    scores_options: bool

    def ask(self, requests: Sequence[Request]) -> list[Reply]: ...

    def close(self) -> None: ...


class Heartbeat:
    """Says how far a long questioning is, every half minute."""

    def __init__(self, total: int) -> None:
        self._total, self._next = total, time.monotonic() + 30

    def answered(self, done: int) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + 30
            log.info("judge: %d of %d questions answered", done, self._total)


class JudgeOptions(Strict):
    """Who explains and scores. `base_url` alone means an OpenAI-compatible server."""

    kind: Literal["rule", "openai", "local"] = Field(
        default="rule", description="rule: no model. openai: any OpenAI-compatible server. local: a Hugging Face model."
    )
    base_url: str = Field(default="", description="Of the server, with its version part: http://127.0.0.1:8000/v1")
    model: str = Field(
        default="",
        description="openai: the model's name there. local: a folder or Hub name; empty: SmolLM2-135M-Instruct.",
    )
    key_variable: str = Field(
        default="", pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$",
        description="The environment variable that holds the key (its name, not the key). Empty: no key is sent.",
    )  # fmt: skip
    body: dict[str, Any] = Field(
        default_factory=dict,
        description="openai: fields laid over the request's body; null takes one out (models that refuse max_tokens).",
    )
    concurrency: int = Field(default=8, ge=1, le=256, description="openai: requests under way at once, at most.")
    requests_per_minute: float = Field(default=0, ge=0, description="openai: at most so many are sent; 0: no limit.")
    max_tokens_total: int = Field(
        default=0, ge=0,
        description="openai: prompt and reply tokens this judge may use in all, over every run that shares its cache; "
        "0: no limit.",
    )  # fmt: skip
    max_cost: float = Field(default=0, ge=0, description="openai: as max_tokens_total, in the prices' currency.")
    prompt_price: float = Field(default=0, ge=0, description="Of a million prompt tokens.")
    reply_price: float = Field(default=0, ge=0, description="Of a million reply tokens.")
    timeout: float = Field(default=120, gt=0, description="openai: seconds for one request, all of it.")
    retries: int = Field(default=6, ge=0, description="openai: further tries after a failure that may pass.")
    backoff: float = Field(default=1.0, ge=0, description="openai: seconds before the first retry; doubles each time.")
    batch: int = Field(default=16, ge=1, description="local: prompts in one forward pass.")
    cache: str = Field(default="", description="Folder of kept replies; empty: judge/ in the store.")
    unparsable_limit: float = Field(
        default=0.1, ge=0, le=1, description="A larger share of replies that do not parse fails the metric."
    )

    @model_validator(mode="before")
    @classmethod
    def _an_address_means_a_server(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("base_url") and "kind" not in data:
            return {**data, "kind": "openai"}
        return data

    @field_validator("base_url")
    @classmethod
    def _plain_address(cls, value: str) -> str:
        if not value:
            return value
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("write an address such as http://127.0.0.1:8000/v1")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("no user, password or query in it: a key goes into the variable that key_variable names")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _fits_together(self) -> JudgeOptions:
        if self.kind == "openai" and not self.base_url:
            raise ValueError("kind openai needs base_url")
        if self.kind != "openai" and self.base_url:
            raise ValueError(f"base_url belongs to kind openai, not {self.kind}")
        if self.kind == "rule" and self.model:
            raise ValueError("model belongs to kind openai (with base_url) or local")
        if self.max_cost and not (self.prompt_price or self.reply_price):
            raise ValueError("max_cost needs prompt_price and reply_price")
        return self


def make_judge(options: JudgeOptions) -> Judge:
    """The chat judge that `options` describe (kind `openai` or `local`; `rule` asks nobody). Close it after use.

    Raises JudgeError when the key's variable is not set or a local model cannot be loaded.
    """
    if options.kind == "openai":
        from harness.metrics.autointerp.openai_judge import OpenAIJudge

        return OpenAIJudge(options, _replies(options, options.model or "default"))
    if options.kind == "local":
        from harness.metrics.autointerp.local_judge import LocalJudge, find_model

        return LocalJudge(
            find_model(options.model, cache_folder(options)),
            _replies(options, options.model or "smollm2"),
            options.batch,
        )
    raise ValueError(f"judge kind {options.kind!r} asks no model; chat judges are openai and local")


def cache_folder(options: JudgeOptions) -> Path:
    """Where replies are kept: `cache`, else `judge` in the store ($HARNESS_STORE or the checkout's .harness)."""
    return Path(options.cache or Path(os.environ.get("HARNESS_STORE") or ROOT / ".harness") / "judge")


def _replies(options: JudgeOptions, name: str) -> Replies:
    """One file for each judge: what else could change a reply is part of its name."""
    identity = [options.kind, options.base_url, name, options.body]
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[-40:]
    return Replies(cache_folder(options) / f"{slug}-{digest}.jsonl")
