"""A judge behind an OpenAI-compatible server: POST {base_url}/chat/completions, many at once, within a budget.

The server is not trusted: replies are bounded in size and time, redirects are not followed, and the key, should the
server echo it, is taken out of whatever is kept, logged or shown.
"""

from __future__ import annotations

import email.utils
import json
import logging
import os
import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx
from pydantic import Field, field_validator, model_validator

from harness.metrics.autointerp.judge import ChatOptions, Heartbeat, Judge, JudgeError, Request, register
from harness.metrics.autointerp.limits import Allowance, Pace
from harness.metrics.autointerp.replies import Replies, Reply

log = logging.getLogger(__name__)

LARGEST_REPLY = 1 << 20  # bytes
LONGEST_WAIT = 300.0  # seconds between two tries; a server that asks for more is an error
LARGEST_COUNT = 10_000_000  # tokens in one reply's `usage`; more is nonsense
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class OpenAIOptions(ChatOptions):
    """Any OpenAI-compatible server."""

    kind: Literal["openai"] = "openai"
    base_url: str = Field(min_length=1, description="Of the server, with its version part: http://127.0.0.1:8000/v1")
    model: str = Field(default="", description="The model's name there.")
    key_variable: str = Field(
        default="", pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$",
        description="The environment variable that holds the key (its name, not the key). Empty: no key is sent.",
    )  # fmt: skip
    body: dict[str, Any] = Field(
        default_factory=dict,
        description="Fields laid over the request's body; null takes one out (models that refuse max_tokens).",
    )
    concurrency: int = Field(default=8, ge=1, le=256, description="Requests under way at once, at most.")
    requests_per_minute: float = Field(default=0, ge=0, description="At most so many are sent; 0: no limit.")
    max_tokens_total: int = Field(
        default=0, ge=0,
        description="Prompt and reply tokens this judge may use in all, over every run that shares its cache; "
        "0: no limit.",
    )  # fmt: skip
    max_cost: float = Field(default=0, ge=0, description="As max_tokens_total, in the prices' currency.")
    prompt_price: float = Field(default=0, ge=0, description="Of a million prompt tokens.")
    reply_price: float = Field(default=0, ge=0, description="Of a million reply tokens.")
    timeout: float = Field(default=120, gt=0, description="Seconds for one request, all of it.")
    retries: int = Field(default=6, ge=0, description="Further tries after a failure that may pass.")
    backoff: float = Field(default=1.0, ge=0, description="Seconds before the first retry; doubles each time.")

    @field_validator("base_url")
    @classmethod
    def _plain_address(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("write an address such as http://127.0.0.1:8000/v1")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("no user, password or query in it: a key goes into the variable that key_variable names")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _fits_together(self) -> OpenAIOptions:
        if self.max_cost and not (self.prompt_price or self.reply_price):
            raise ValueError("max_cost needs prompt_price and reply_price")
        return self

    def open(self) -> Judge:
        return OpenAIJudge(self, self.replies(self.base_url, self.model or "default", self.body))


class _MayPass(Exception):
    """A failure that another try may mend. after: seconds the server asks to wait, if it does."""

    def __init__(self, reason: str, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after


class OpenAIJudge:
    """See the module. A request that is cached or under way is not sent again; a failure that will not pass (a refused
    key, retries used up, the budget) stops the judge: later requests raise the same JudgeError."""

    scores_options = False  # few servers give log-probabilities; all give text

    def __init__(self, options: OpenAIOptions, replies: Replies) -> None:
        self.options, self.replies = options, replies
        self._key = _key(options)
        self._url = f"{options.base_url}/chat/completions"
        local = urlsplit(options.base_url).hostname in LOOPBACK
        if self._key and options.base_url.startswith("http:") and not local:
            log.warning("the judge's key travels unencrypted: %s", options.base_url)
        self._client = httpx.Client(
            timeout=options.timeout,
            limits=httpx.Limits(max_connections=options.concurrency),
            follow_redirects=False,  # another host would get the key
            trust_env=not local,  # a proxy has no business between us and this machine
        )
        self._budget = Allowance(
            replies, options.max_tokens_total, options.max_cost, options.prompt_price, options.reply_price
        )
        self._pace = Pace(options.requests_per_minute)
        self._pool = ThreadPoolExecutor(options.concurrency, thread_name_prefix="judge")
        self._lock = threading.Lock()
        self._under_way: dict[str, Future[Reply]] = {}
        self._stop = threading.Event()
        self._stopped_by = "the judge was stopped"

    def ask(self, requests: Sequence[Request]) -> list[Reply]:
        """Replies in the order of `requests`; blocks until all are there. Raises JudgeError."""
        futures = [self._submit(request) for request in requests]
        replies, heartbeat = [], Heartbeat(len(futures))
        try:
            for future in futures:
                replies.append(future.result())
                heartbeat.answered(len(replies))
            return replies
        except BaseException:
            self._stop.set()  # requests already sent still finish, and are kept
            raise

    def close(self) -> None:
        self._stop.set()
        self._pool.shutdown(wait=True)
        self._client.close()
        self.replies.close()

    def _submit(self, request: Request) -> Future[Reply]:
        key = request.key()
        with self._lock:
            known = self.replies.get(key)
            if known is not None:
                done: Future[Reply] = Future()
                done.set_result(known)
                return done
            if key not in self._under_way:
                self._under_way[key] = self._pool.submit(self._answer, key, request)
            return self._under_way[key]

    def _answer(self, key: str, request: Request) -> Reply:
        try:
            reply = self._try_often(key, request)
        except Exception as error:
            if not self._stop.is_set():
                self._stopped_by = str(error)
                self._stop.set()
            raise
        with self._lock:
            del self._under_way[key]
        return reply

    def _try_often(self, key: str, request: Request) -> Reply:
        longest = (self.options.body.get(name) for name in ("max_tokens", "max_completion_tokens"))
        reply_bound = max(request.max_tokens, *(value for value in longest if isinstance(value, int)), 0)
        reason = ""
        for attempt in range(self.options.retries + 1):
            with self._budget.reserved(_prompt_tokens(request), reply_bound):
                self._pace.wait(self._stop)
                if self._stop.is_set():
                    raise JudgeError(self._stopped_by)
                try:
                    reply = self._post(request)
                    # Here, so that what was set aside is counted before it is freed. An empty reply is nobody's answer:
                    # it counts as unparsable now, and is asked for again by the next run.
                    if reply.text.strip():
                        self.replies.add(key, reply)
                    else:
                        self.replies.lost(reply.prompt_tokens, reply.completion_tokens)
                    return reply
                except _MayPass as problem:
                    reason, after = str(problem), problem.after
            if attempt == self.options.retries:
                break
            wait = min(LONGEST_WAIT, self.options.backoff * 2**attempt) * random.uniform(0.5, 1.5)
            if after is not None:
                if after > LONGEST_WAIT:
                    raise JudgeError(f"{self._url} asks to wait {after:.0f} s; run again later, replies are kept")
                self._pace.hold(after)  # it speaks to all of us
                wait = max(wait, after)
            log.info("judge: %s; again in %.1f s", reason, wait)
            self._stop.wait(wait)
        raise JudgeError(
            f"{self._url}: {reason}, {self.options.retries + 1} times; {len(self.replies)} replies are kept, "
            "the same command continues"
        )

    def _post(self, request: Request) -> Reply:
        body: dict[str, Any] = {
            "model": self.options.model or "default",
            "messages": [{"role": message.role, "content": message.content} for message in request.messages],
            "max_tokens": request.max_tokens,
            "temperature": 0,
            **self.options.body,
        }
        headers = {"Accept-Encoding": "identity"}  # what we bound in size must not unpack into more
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        content = {name: value for name, value in body.items() if value is not None}
        try:
            with self._client.stream("POST", self._url, json=content, headers=headers) as response:
                status, wait = response.status_code, response.headers.get("retry-after")
                data = self._read(response)
        except httpx.TransportError as error:  # timeouts, refused or broken connections, a body cut short
            raise _MayPass(f"{type(error).__name__} {self._shown(str(error))}".strip()) from None
        if status == 200:
            return self._parsed(data, request)
        said = self._shown(data.decode("utf-8", "replace"))
        spent = status == 402 or "insufficient_quota" in said  # some say 429 for it, which trying again never mends
        if not spent and (status in (408, 409, 429) or status >= 500):
            raise _MayPass(f"HTTP {status} {said}".strip(), _seconds(wait))
        raise JudgeError(f"{self._url} answers HTTP {status}: {said or 'nothing more'}{_advice(status, self.options)}")

    def _read(self, response: httpx.Response) -> bytes:
        deadline, data = time.monotonic() + self.options.timeout, bytearray()
        for chunk in response.iter_raw():  # not iter_bytes: see Accept-Encoding
            data += chunk
            if len(data) > LARGEST_REPLY:
                raise _MayPass(f"a reply of more than {LARGEST_REPLY} bytes")
            if time.monotonic() > deadline:  # httpx's own limit starts anew with every byte
                raise _MayPass(f"a reply that was not complete after {self.options.timeout:g} s")
        return bytes(data)

    def _parsed(self, data: bytes, request: Request) -> Reply:
        try:
            answer = json.loads(data)
            message = answer["choices"][0]["message"]
            text = message.get("content")
            if text is None:
                text = ""  # a refusal, or nothing but a tool call: the protocols count it as unparsable
            if not isinstance(text, str):
                raise TypeError
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
            # It may have been paid for.
            self.replies.lost(_prompt_tokens(request), len(data) // 4)
            raise _MayPass("a reply that is not a chat completion") from None
        # Half a surrogate pair is legal JSON and cannot be written to any file.
        text = self._without_key(text).encode("utf-8", "replace").decode()
        usage = answer.get("usage")
        usage = usage if isinstance(usage, dict) else {}
        prompt = _count(usage.get("prompt_tokens"), _prompt_tokens(request))
        completion = _count(usage.get("completion_tokens"), _tokens_of(text))
        return Reply(text, prompt_tokens=prompt, completion_tokens=completion)

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "[key]") if self._key else text

    def _shown(self, text: str) -> str:
        """Something a server said, fit for one line of a log: no key, no control characters, not long."""
        plain = "".join(c if c.isprintable() else " " for c in self._without_key(text))
        return " ".join(plain.split())[:200]


def _key(options: OpenAIOptions) -> str:
    if not options.key_variable:
        return ""
    key = os.environ.get(options.key_variable, "").strip()
    if not key:
        raise JudgeError(f"judge.key_variable names {options.key_variable}, which is not set in the environment")
    if not key.isascii() or not key.isprintable():
        raise JudgeError(f"the key in {options.key_variable} has characters that no HTTP header can carry")
    return key


def _tokens_of(text: str) -> int:
    """An estimate on the large side: tokenizers give fewer tokens than a third of a text's bytes, plus the template."""
    return len(text.encode()) // 3 + 8


def _prompt_tokens(request: Request) -> int:
    return sum(_tokens_of(message.content) for message in request.messages)


def _count(value: Any, estimate: int) -> int:
    fine = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST_COUNT
    return value if fine else estimate


def _seconds(retry_after: str | None) -> float | None:
    """Retry-After: a number of seconds or an HTTP date; None where it is neither."""
    if not retry_after:
        return None
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return max(seconds, 0.0) if seconds == seconds else None


def _advice(status: int, options: OpenAIOptions) -> str:
    if status in (401, 403):
        return f" (the key comes from {options.key_variable})" if options.key_variable else " (set judge.key_variable)"
    if status == 404:
        return f" (judge.base_url must hold the version part, such as /v1; judge.model is {options.model!r})"
    if status in (402, 429):
        return " (the account has no credit left)"
    return " (redirects are not followed)" if 300 <= status < 400 else ""


register("openai", OpenAIOptions)
