"""What a judge may spend, and how fast it may ask."""

from __future__ import annotations

import threading
import time

from harness.metrics.autointerp.judge import JudgeError
from harness.metrics.autointerp.replies import Replies


class Allowance:
    """Tokens and money over every run that shares the cache. What is under way is set aside at its largest possible
    cost, so the budget is not overstepped by more than a server's own way of counting tokens."""

    def __init__(
        self, replies: Replies, max_tokens: int, max_cost: float, prompt_price: float, reply_price: float
    ) -> None:
        """0: no limit. Prices of a million tokens, in the currency of `max_cost`."""
        self._replies, self._max_tokens, self._max_cost = replies, max_tokens, max_cost
        self._prices = prompt_price, reply_price
        self._changed = threading.Condition()
        self._held = [0, 0]  # prompt and reply tokens set aside

    def reserved(self, prompt: int, completion: int) -> _Reserved:
        return _Reserved(self, prompt, completion)

    def take(self, prompt: int, completion: int) -> None:
        with self._changed:
            # Where it does not fit, what is under way may turn out cheaper than was set aside.
            while self._over(prompt, completion):
                if self._held == [0, 0]:
                    raise JudgeError(self._message())
                self._changed.wait()
            self._held[0] += prompt
            self._held[1] += completion

    def give_back(self, prompt: int, completion: int) -> None:
        with self._changed:
            self._held[0] -= prompt
            self._held[1] -= completion
            self._changed.notify_all()

    def _over(self, prompt: int, completion: int) -> bool:
        prompt += self._replies.prompt_tokens + self._held[0]
        completion += self._replies.completion_tokens + self._held[1]
        too_many = self._max_tokens and prompt + completion > self._max_tokens
        return bool(too_many or (self._max_cost and self._cost(prompt, completion) > self._max_cost))

    def _cost(self, prompt: int, completion: int) -> float:
        return (prompt * self._prices[0] + completion * self._prices[1]) / 1e6

    def _message(self) -> str:
        replies = self._replies
        prompt, completion = replies.prompt_tokens, replies.completion_tokens
        spent = [f"{prompt + completion} of {self._max_tokens} tokens"] if self._max_tokens else []
        if self._max_cost:
            spent.append(f"{self._cost(prompt, completion):.4g} of {self._max_cost:g} in cost")
        return (
            f"the judge's budget is spent: {', '.join(spent)}; the next request does not fit. {len(replies)} replies "
            "are kept; raise max_tokens_total or max_cost to continue"
        )


class _Reserved:
    def __init__(self, budget: Allowance, prompt: int, completion: int) -> None:
        self._budget, self._amount = budget, (prompt, completion)

    def __enter__(self) -> None:
        self._budget.take(*self._amount)

    def __exit__(self, *_: object) -> None:
        self._budget.give_back(*self._amount)


class Pace:
    """Keeps requests 60 / `per_minute` seconds apart over all threads; holds all back while a server asks for it."""

    def __init__(self, per_minute: float) -> None:
        self._gap = 60 / per_minute if per_minute else 0.0
        self._lock = threading.Lock()
        self._next = self._not_before = 0.0

    def wait(self, stop: threading.Event) -> None:
        with self._lock:
            at = max(time.monotonic(), self._next)
            self._next = at + self._gap
        while not stop.is_set():
            delay = max(at, self._not_before) - time.monotonic()
            if delay <= 0:
                return
            stop.wait(delay)

    def hold(self, seconds: float) -> None:
        with self._lock:
            self._not_before = max(self._not_before, time.monotonic() + seconds)
