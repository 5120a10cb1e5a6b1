"""Who answers the questions of auto-interpretation: what a judge is, and how one is chosen.

A judge takes chat messages and gives back text or the log-probabilities of given options. What it says is untrusted:
the protocols (llm_explainer.py, llm_scorers.py) parse it strictly and count what does not parse.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field, SerializeAsAny

from harness.base.errors import HarnessError
from harness.base.files import store_root
from harness.base.settings import Strict, by_kind
from harness.metrics.autointerp.replies import Replies, Reply
from kernels.registry import Registry

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
    """Who explains and scores. A kind is one file beside this one."""

    kind: Any  # its name: a Literal in every kind


class ChatOptions(JudgeOptions):
    """A judge that is asked in words, and whose replies are kept."""

    cache: str = Field(default="", description="Folder of kept replies; empty: judge/ in the store.")
    unparsable_limit: float = Field(
        default=0.1, ge=0, le=1, description="A larger share of replies that do not parse fails the metric."
    )

    @abstractmethod
    def open(self) -> Judge:
        """The judge, to be closed after use. Raises JudgeError where it cannot be asked."""

    def folder(self) -> Path:
        """Where replies are kept."""
        return Path(self.cache) if self.cache else store_root() / "judge"

    def replies(self, address: str, name: str, body: Mapping[str, Any]) -> Replies:
        """One file for each judge: what else could change a reply is part of its name."""
        identity = [self.kind, address, name, body]
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]
        slug = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[-40:]
        return Replies(self.folder() / f"{slug}-{digest}.jsonl")


def _kind_of(options: Mapping[str, Any]) -> str:
    """An address alone means an OpenAI-compatible server; nothing at all means no model."""
    return "openai" if options.get("base_url") else "rule"


JUDGES: Registry[type[JudgeOptions]] = Registry("judge", "harness.metrics.autointerp", "harness.judges")
# In a model: a mapping becomes the options of its kind.
AnyJudge = Annotated[SerializeAsAny[JudgeOptions], by_kind(JUDGES, _kind_of)]


def register(name: str, options: type[JudgeOptions]) -> None:
    """Add a kind of judge under `name`. ValueError: `name` is taken."""
    JUDGES.register(name, options)
