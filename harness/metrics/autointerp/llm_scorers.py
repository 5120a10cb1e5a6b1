"""Scores of explanations by a chat judge: detection, fuzzing and simulation.

Which windows are shown, in which order and with which marks depends on the unit and the seed alone, so that another
unit's explanation (a control) is scored on the same questions as the unit's own. The judge never learns how many
windows are positive.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from harness.metrics.autointerp import prompts
from harness.metrics.autointerp.contexts import (
    NEAR_MISS,
    Context,
    Explanation,
    Item,
    Scored,
    UnitContexts,
    items,
    plain_items,
)
from harness.metrics.autointerp.judge import Judge, JudgeError, Request
from harness.metrics.autointerp.replies import Reply
from harness.metrics.autointerp.scorer import register_scorer

Pair = tuple[Explanation, UnitContexts]

WINDOWS = 10  # in one request to a judge that answers in text
WRONGLY_MARKED = NEAR_MISS - 1  # the group of a fuzzed window whose marks are wrong


@dataclass(frozen=True)
class Shown:
    """One window as the judge sees it, and what is true of it. group: as in Item."""

    text: str
    label: int
    group: int


class _Windows(ABC):
    """Yes or no to each window. Predictions: 0 or 1 from a judge that answers in text; P(Yes) against No from one that
    weighs options, where 1/2 is the threshold."""

    name: str

    def __init__(self, judge: Judge, *, seed: int, windows: int = WINDOWS) -> None:
        self._judge, self._seed, self._windows = judge, seed, windows

    @abstractmethod
    def shown(self, unit: UnitContexts, random: np.random.Generator) -> list[list[Shown]]:
        """Parts; a request shows windows of one part only."""

    def score(self, explanation: Explanation, unit: UnitContexts) -> Scored:
        return self.score_all([(explanation, unit)])[0]

    def score_all(self, pairs: Sequence[Pair]) -> list[Scored]:
        """All at once: a judge is quick only when it has many questions."""
        size = 1 if self._judge.scores_options else self._windows
        batches = [list(self._batches(unit, size)) for _, unit in pairs]
        requests = [
            self._request(explanation.text, batch)
            for (explanation, _), of_unit in zip(pairs, batches, strict=True)
            for batch in of_unit
            if explanation.text
        ]
        replies = iter(self._judge.ask(requests))
        return [
            self._scored(of_unit, [next(replies) for _ in of_unit] if explanation.text else [None] * len(of_unit))
            for (explanation, _), of_unit in zip(pairs, batches, strict=True)
        ]

    def _batches(self, unit: UnitContexts, size: int) -> Iterator[list[Shown]]:
        """Batches of at most `size`, in each nearly the same share of positives, in random order."""
        random = _generator(self._seed, unit)
        for part in self.shown(unit, random):
            count = -(-len(part) // size)
            dealt: list[list[Shown]] = [[] for _ in range(count)]
            shuffled = [part[i] for i in random.permutation(len(part))]
            for turn, window in enumerate(sorted(shuffled, key=lambda window: -window.label)):
                dealt[turn % count].append(window)
            for batch in dealt:
                yield [batch[i] for i in random.permutation(len(batch))]

    def _request(self, explanation: str, batch: list[Shown]) -> Request:
        if self._judge.scores_options:
            return prompts.judge_window(self.name, explanation, batch[0].text)
        return prompts.judge_windows(self.name, explanation, [window.text for window in batch])

    def _scored(self, batches: Sequence[list[Shown]], replies: Sequence[Reply | None]) -> Scored:
        answered: list[Shown] = []
        predictions: list[float] = []
        unparsable = 0
        for batch, reply in zip(batches, replies, strict=True):
            answers = self._read(reply, len(batch)) if reply else None
            if answers is None:
                unparsable += len(batch)
                continue
            answered += batch
            predictions += answers
        labels, groups = tuple(window.label for window in answered), tuple(window.group for window in answered)
        return Scored(self.name, labels, tuple(predictions), unparsable, groups)

    def _read(self, reply: Reply, length: int) -> list[float] | None:
        if reply.logprobs:
            yes, no = reply.logprobs
            return [float(1 / (1 + np.exp(no - yes)))]
        answers = prompts.read_list(reply.text, length)
        return None if answers is None else [float(answer) for answer in answers]


class LlmDetection(_Windows):
    """Does the unit fire in this window? (arXiv 2410.13928.) Asked of all `items` of the unit; nothing is marked."""

    name = "detection"

    def shown(self, unit: UnitContexts, random: np.random.Generator) -> list[list[Shown]]:
        return [[Shown(prompts.plain(item.context.tokens), item.label, item.group) for item in items(unit)]]


class LlmFuzzing(_Windows):
    """Are the marked tokens the firing ones? (arXiv 2410.13928.) Ours: every `score` window is shown twice, once
    rightly marked and once with as many marks on silent tokens, never both in one request, and each request holds both
    kinds; so neither the topic of a window nor the number of marks gives the answer away. Windows in which the unit
    fires on nearly all tokens cannot be marked wrongly and are left out."""

    name = "fuzzing"

    def shown(self, unit: UnitContexts, random: np.random.Generator) -> list[list[Shown]]:
        parts: list[list[Shown]] = [[], []]
        kept = 0
        for item in items(unit):
            context = item.context
            right = prompts.firing(context)
            silent = [i for i, a in enumerate(context.activations) if a == 0 and context.tokens[i].strip()]
            if not item.label or not right or len(silent) < len(right):
                continue
            wrong = random.choice(silent, len(right), replace=False).tolist()
            parts[kept % 2].append(Shown(prompts.plain(context.tokens, set(right)), 1, item.group))
            parts[1 - kept % 2].append(Shown(prompts.plain(context.tokens, set(wrong)), 0, WRONGLY_MARKED))
            kept += 1
        return [part for part in parts if part]


class LlmSimulation:
    """How strongly does the unit fire on each token? (Bills et al., 2023.) To be scored by Pearson's correlation.

    labels: true activations; predictions: 0..10, from a text, or the mean over digits weighed by their probability;
    both of every token of the unit's `items`, near misses left out. unparsable counts tokens.
    """

    name = "simulation"

    def __init__(self, judge: Judge) -> None:
        self._judge = judge

    def score(self, explanation: Explanation, unit: UnitContexts) -> Scored:
        return self.score_all([(explanation, unit)])[0]

    def score_all(self, pairs: Sequence[Pair]) -> list[Scored]:
        requests = [
            request
            for explanation, unit in pairs
            for item in _simulated(unit)
            for request in self._requests(explanation.text, item.context)
        ]
        replies = iter(self._judge.ask(requests))
        found = []
        for explanation, unit in pairs:
            labels: list[float] = []
            predictions: list[float] = []
            groups: list[int] = []
            unparsable = 0
            for item in _simulated(unit):
                context = item.context
                answers = self._read([next(replies) for _ in self._requests(explanation.text, context)], context)
                if answers is None:
                    unparsable += len(context.tokens)
                    continue
                labels += context.activations
                predictions += answers
                groups += [item.group] * len(answers)
            found.append(Scored(self.name, tuple(labels), tuple(predictions), unparsable, tuple(groups)))
        return found

    def _requests(self, explanation: str, context: Context) -> list[Request]:
        if not explanation:
            return []
        if self._judge.scores_options:
            return [prompts.simulate_token(explanation, context.tokens, i) for i in range(len(context.tokens))]
        return [prompts.simulate_window(explanation, context.tokens)]

    def _read(self, replies: list[Reply], context: Context) -> list[float] | None:
        if not replies:
            return None
        if not self._judge.scores_options:
            return prompts.read_strengths(replies[0].text, len(context.tokens))
        weights = np.exp([reply.logprobs for reply in replies])  # [tokens, digits]
        digits = np.arange(len(prompts.DIGITS))
        return (weights @ digits / weights.sum(1) * prompts.STRENGTHS / digits[-1]).tolist()


def check_unparsable(scored: Sequence[Scored], limit: float) -> None:
    """Raises JudgeError when more than `limit` of what `scored` (of one scorer) asked got no answer that parses."""
    lost = sum(one.unparsable for one in scored)
    total = lost + sum(len(one.labels) for one in scored)
    if total and lost / total > limit:
        raise JudgeError(
            f"{scored[0].name}: {lost} of {total} answers of the judge do not parse ({lost / total:.0%}, the limit is "
            f"{limit:.0%}): its figures would be of a selection; use another judge or raise judge.unparsable_limit"
        )


def _simulated(unit: UnitContexts) -> list[Item]:
    return plain_items(unit)


def _generator(seed: int, unit: UnitContexts) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(unit.site.encode()), unit.unit])


def _asked(judge: Judge | None) -> Judge:
    assert judge is not None, "options see to it"
    return judge


register_scorer("detection", lambda judge, seed: LlmDetection(_asked(judge), seed=seed), chat=True)
register_scorer("fuzzing", lambda judge, seed: LlmFuzzing(_asked(judge), seed=seed), chat=True)
