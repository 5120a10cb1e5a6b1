"""Replies of a judge, kept on disk as they arrive, so that a killed or repeated run asks nothing twice."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import dataclass
from pathlib import Path

from harness.base.errors import HarnessError


@dataclass(frozen=True)
class Reply:
    """What a judge answered: a text, or log-probabilities of the options it was given. Untrusted either way.

    logprobs: natural logarithms, in the order of the request's options; empty where a text was asked for.
    """

    text: str = ""
    logprobs: tuple[float, ...] = ()
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Replies:
    """An append-only file of JSON lines, one reply each, for one judge.

    A reply is one write that begins and ends with a line break: a line torn by a kill or a full disk spoils nothing
    but itself, and is asked again. Several processes may append to the same file; each sees what stood there when it
    opened it. Threads may share one object. Tokens are counted over the whole file, so a budget holds across runs.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._known: dict[str, Reply] = {}
        self.prompt_tokens = self.completion_tokens = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            with path.open("rb") as stream:
                for line in stream:
                    self._read(line)
        except OSError as error:
            raise HarnessError(f"cannot keep judge replies in {path}: {error.strerror}") from error

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: str) -> Reply | None:
        return self._known.get(key)

    def add(self, key: str, reply: Reply) -> None:
        record = {"key": key, "text": reply.text, "tokens": [reply.prompt_tokens, reply.completion_tokens]}
        if reply.logprobs:
            record["logprobs"] = reply.logprobs
        self._append(record)
        self._known[key] = reply

    def lost(self, prompt_tokens: int, completion_tokens: int) -> None:
        """Notes tokens that were paid for a reply that cannot be used."""
        self._append({"tokens": [prompt_tokens, completion_tokens]})

    def close(self) -> None:
        os.close(self._file)

    def _append(self, record: dict[str, object]) -> None:
        line = b"\n" + json.dumps(record).encode() + b"\n"
        with self._lock:
            try:
                if os.write(self._file, line) != len(line):
                    raise HarnessError(f"cannot keep judge replies in {self.path}: the disk is full")
            except OSError as error:
                raise HarnessError(f"cannot keep judge replies in {self.path}: {error.strerror}") from error
            self._count(record)

    def _read(self, line: bytes) -> None:
        try:
            record = json.loads(line)
            self._count(record)
            if "key" in record:
                self._known[record["key"]] = Reply(
                    record["text"], tuple(record.get("logprobs", ())), *map(int, record["tokens"])
                )
        except (ValueError, KeyError, TypeError):
            return  # a blank line, or one that a kill cut short

    def _count(self, record: dict) -> None:
        prompt, completion = record["tokens"]
        self.prompt_tokens += prompt
        self.completion_tokens += completion
