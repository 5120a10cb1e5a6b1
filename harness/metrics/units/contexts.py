"""Where one unit fires, as windows of text: its strongest firings, weaker ones, and where it might and does not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.metrics.units.reports import Context, PairContext
from harness.metrics.units.text import CodedText

TOP, TERCILES, A_TERCILE, NEAR_MISSES = 6, 3, 2, 4
LOUDEST = 99


@dataclass(frozen=True)
class Windows:
    """The text, and the index in the file's `pieces` of every token. `[tokens]`"""

    text: CodedText
    pieces: np.ndarray

    def around(self, token: int, levels: np.ndarray) -> Context:
        """levels: strength of the unit on every token, 0 to LOUDEST. `[tokens]`"""
        low, high = int(self.text.low[token]), int(self.text.high[token])
        return Context(
            p=tuple(self.pieces[low:high].tolist()),
            s=tuple(levels[low:high].tolist()),
            at=int(token) - low,
            d=int(self.text.document[token]),
        )

    def around_pair(self, token: int, levels: np.ndarray, of_partner: np.ndarray) -> PairContext:
        window = self.around(token, levels)
        low, high = int(self.text.low[token]), int(self.text.high[token])
        return PairContext(p=window.p, s=window.s, at=window.at, d=window.d, t=tuple(of_partner[low:high].tolist()))


def levels_of(n_tokens: int, tokens: np.ndarray, strengths: np.ndarray) -> np.ndarray:
    """Strength on every token in steps of the unit's largest: 0 where it is silent, else 1 to LOUDEST. `[n_tokens]`"""
    levels = np.zeros(n_tokens, int)
    if len(tokens):
        levels[tokens] = np.maximum(1, np.floor(LOUDEST * (strengths / strengths.max())))
    return levels


def strongest(text: CodedText, tokens: np.ndarray, strengths: np.ndarray) -> list[int]:
    """Up to TOP of `tokens`, the strongest of each document first; then others that stand in no window so far."""
    ranked = tokens[np.argsort(-strengths, kind="stable")]
    documents = text.document[ranked]
    _, first = np.unique(documents, return_index=True)
    chosen = ranked[np.sort(first)[:TOP]].tolist()
    shown = np.zeros(len(text), bool)
    for token in chosen:
        shown[text.low[token] : text.high[token]] = True
    for token in ranked:
        if len(chosen) == TOP:
            break
        if not shown[token]:
            chosen.append(int(token))
            shown[text.low[token] : text.high[token]] = True
    order = np.argsort(-strengths[np.searchsorted(tokens, chosen)], kind="stable")
    return [chosen[i] for i in order]


def by_tercile(
    tokens: np.ndarray, strengths: np.ndarray, without: list[int], generator: np.random.Generator
) -> list[int]:
    """A_TERCILE of `tokens` from each third of the strengths, the strongest third first; none of `without`."""
    ranked = tokens[np.argsort(-strengths, kind="stable")]
    found: list[int] = []
    for part in np.array_split(ranked, TERCILES):
        left = part[~np.isin(part, without)]
        found += generator.permutation(left)[:A_TERCILE].tolist()
    return found


def near_misses(text: CodedText, tokens: np.ndarray, levels: np.ndarray, generator: np.random.Generator) -> list[int]:
    """Up to NEAR_MISSES tokens that the unit fires on elsewhere, as often as it does, in windows with no firing."""
    before = np.concatenate([[0], np.cumsum(levels > 0)])
    silent = (before[text.high] == before[text.low]) & text.counted
    fires = np.bincount(text.ids[tokens], minlength=int(text.ids.max()) + 1)
    pool = np.flatnonzero(silent & (fires[text.ids] > 0))
    if not len(pool):
        return []
    there = np.bincount(text.ids[pool], minlength=len(fires))
    chance = (fires / np.maximum(there, 1))[text.ids[pool]]
    return generator.choice(pool, min(NEAR_MISSES, len(pool)), replace=False, p=chance / chance.sum()).tolist()
