"""Contexts of a unit from where it fires: for explaining and for scoring, from different documents, always."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from harness.metrics.autointerp.contexts import Context, UnitContexts
from harness.metrics.autointerp.firings import Text


@dataclass(frozen=True)
class WantedContexts:
    """How many contexts of each kind. least: fewer than this of any but near misses are too few to judge a unit by."""

    explain: int
    explain_silent: int
    score: int
    score_silent: int
    near_misses: int
    quantiles: int
    least: int
    same_token: int = 0


def collect(
    text: Text,
    site: str,
    unit: int,
    tokens: np.ndarray,
    strengths: np.ndarray,
    neighbours: Sequence[np.ndarray],
    wanted: WantedContexts,
    generator: np.random.Generator,
) -> UnitContexts | None:
    """A unit that fires on `tokens` (ascending) with `strengths`; None where it has too few contexts.

    Activating contexts are drawn in equal numbers from each quantile of the unit's strengths, windows apart where
    possible. Silent windows have no firing at all, and the same lengths as activating ones: of a unit that fires often
    only windows at the edges of documents stay silent, and a rule would find out. Near misses are silent windows around
    a token that the unit fires on elsewhere, that follows one which it fires after elsewhere, or that a unit like it
    fires on (`neighbours`, their tokens).
    """
    activity = np.zeros(len(text), np.float32)
    activity[tokens] = strengths
    silence = _silence(text, tokens, activity)
    quantile = np.empty(len(tokens), int)
    quantile[np.argsort(strengths, kind="stable")] = np.arange(len(tokens)) * wanted.quantiles // max(1, len(tokens))
    misses = _MissSampler(text, tokens, neighbours, silence)

    def side(explains: bool, n_active: int, n_silent: int, n_near: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        mine = text.explains == explains
        fires = np.flatnonzero(mine[tokens])
        active = fires[_spread(tokens[fires], quantile[fires], n_active, text, generator)]
        drawn = _drawn(silence * mine, n_silent + n_near, generator)
        near = misses.draw(mine, n_near, generator)
        drawn = drawn[~np.isin(drawn, near)][: n_silent + (n_near - len(near)) * explains]
        return active, drawn, near

    half = wanted.explain_silent // 2
    explain, explain_random, explain_near = side(True, wanted.explain, wanted.explain_silent - half, half)
    score, score_silent, near = side(False, wanted.score, wanted.score_silent, wanted.near_misses)
    same = misses.on_same_token(~text.explains, wanted.same_token, generator)
    if min(len(explain), len(explain_random), len(score), len(score_silent)) < wanted.least:
        return None
    explain = explain[np.argsort(-strengths[explain], kind="stable")]
    window = partial(_window, text, activity)
    return UnitContexts(
        site=site,
        unit=unit,
        density=len(tokens) / len(text),
        explain=tuple(window(token) for token in tokens[explain]),
        explain_silent=tuple(window(token) for token in (*explain_random, *explain_near)),
        score=tuple(window(token) for token in tokens[score]),
        score_quantiles=tuple(quantile[score].tolist()),
        score_silent=tuple(window(token) for token in score_silent),
        near_misses=tuple(window(token) for token in near),
        same_token=tuple(window(token) for token in same),
    )


def _window(text: Text, activity: np.ndarray, token: int) -> Context:
    low, high = int(text.low[token]), int(text.high[token])
    return Context(
        int(text.document[token]), tuple(text.pieces[low:high].tolist()), tuple(activity[low:high].tolist()),
        int(token) - low,
    )  # fmt: skip


def _silence(text: Text, tokens: np.ndarray, activity: np.ndarray) -> np.ndarray:
    """`[tokens]`: the chance of being drawn as the trigger of a silent window; 0 where the window is not silent."""
    before = np.concatenate([[0], np.cumsum(activity > 0)])
    silent = before[text.high] == before[text.low]  # the whole window
    here = np.arange(len(text))
    shape = (here - text.low) * int((text.high - here).max() + 1) + (text.high - here)
    return silent * _as_often(shape, tokens, silent)


def _spread(
    tokens: np.ndarray, quantile: np.ndarray, wanted: int, text: Text, generator: np.random.Generator
) -> np.ndarray:
    """Indices of about equally many of each quantile, in random order, no two windows on one another's trigger."""
    left = {q: list(generator.permutation(np.flatnonzero(quantile == q))) for q in np.unique(quantile)}
    taken = np.zeros(len(text), bool)
    chosen: list[int] = []
    while len(chosen) < wanted and any(left.values()):
        for pool in left.values():
            while pool:
                index = int(pool.pop())
                token = tokens[index]
                if not taken[text.low[token] : text.high[token]].any():
                    taken[token] = True
                    chosen.append(index)
                    break
    return np.array(chosen[:wanted], int)


class _MissSampler:
    """Silent windows that look as if the unit should fire in them: of three kinds, as far as there are any."""

    def __init__(self, text: Text, tokens: np.ndarray, neighbours: Sequence[np.ndarray], silence: np.ndarray) -> None:
        here = np.arange(len(text))
        follows = here > text.low  # the first of a document follows nothing
        before = np.where(follows, text.ids[here - 1], -1) + 1
        near = np.zeros(len(text), bool)
        for others in neighbours:
            near[others] = True
        able = silence > 0
        self.kinds = [
            silence * _as_often(text.ids, tokens, able),
            silence * follows * _as_often(before, tokens[follows[tokens]], able & follows),
            silence * near,
        ]

    def on_same_token(self, mine: np.ndarray, wanted: int, generator: np.random.Generator) -> np.ndarray:
        """Of the first kind alone: the tokens are what the unit fires on, as often; only context tells."""
        return _drawn(self.kinds[0] * mine, wanted, generator)

    def draw(self, mine: np.ndarray, wanted: int, generator: np.random.Generator) -> np.ndarray:
        """About a third of each kind; more of the others where one has too few. Fewer than `wanted` if all have."""
        ranked = [_drawn(weight * mine, wanted, generator).tolist() for weight in self.kinds]
        chosen: dict[int, None] = {}
        for turn in range(wanted):
            for tokens in ranked:
                if turn < len(tokens) and len(chosen) < wanted:
                    chosen[tokens[turn]] = None
        return np.array(list(chosen), int)


def _drawn(weight: np.ndarray, wanted: int, generator: np.random.Generator) -> np.ndarray:
    """Up to `wanted` different tokens, drawn in proportion to `weight` `[tokens]`."""
    pool = np.flatnonzero(weight)
    if not len(pool):
        return pool
    chance = weight[pool] / weight[pool].sum()
    return generator.choice(pool, min(wanted, len(pool)), replace=False, p=chance)


def _as_often(kinds: np.ndarray, tokens: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Weights `[tokens]` that draw each kind from `among` as often as `tokens` are of it, however common there."""
    fires = np.bincount(kinds[tokens], minlength=int(kinds.max()) + 1)
    there = np.bincount(kinds[among], minlength=len(fires))
    return (fires / np.maximum(there, 1))[kinds]
