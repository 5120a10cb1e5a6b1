"""Near-duplicates: text of which most was read before."""

from __future__ import annotations

import hashlib
import re

import numpy as np

SHINGLE = 8  # words
OVERLAP = 0.5

# Thai, Lao, Tibetan, Burmese, Khmer, kana and Chinese characters: no space shows where a word ends.
_UNSPACED = (
    "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, so multiplying modulo 2**64 loses nothing


class Seen:
    """The runs of `SHINGLE` consecutive words of every document admitted so far.

    A document repeats when at least `OVERLAP` of its distinct runs occur in documents admitted before, all of them
    together. Exact, where MinHash estimates; and containment rather than Jaccard similarity between two documents,
    because an excerpt that half lies inside a longer one, or is pieced together from several, has a low Jaccard
    similarity with each and is known text all the same. Admitting all of train before dev, and dev before eval,
    therefore bounds what any dev or eval document shares with all of train by `OVERLAP`.

    Words are runs of letters, digits and underscores, in lower case; in scripts that are written without spaces every
    character is one. A document of fewer than `SHINGLE` words is one
    run. Costs about 70 bytes of memory a word.
    """

    def __init__(self) -> None:
        self._runs: set[int] = set()
        self._words: dict[str, int] = {}

    def admit(self, text: str) -> bool:
        """Whether `text` is new; if so it is remembered."""
        runs = self.runs(text)
        if self.share(runs) >= OVERLAP:
            return False
        self._runs |= runs
        return True

    def share(self, runs: set[int]) -> float:
        """The part of `runs` that occurs in what was admitted."""
        return len(runs & self._runs) / len(runs) if runs else 0.0

    def runs(self, text: str) -> set[int]:
        """64-bit hashes, the same on every machine (Python's own hash of a string is not)."""
        words = [self._hash(word) for word in _WORD.findall(text.lower())] or [self._hash(text)]
        hashes = np.array(words, dtype=np.uint64)
        count = max(1, len(words) - SHINGLE + 1)
        combined = np.zeros(count, dtype=np.uint64)
        for offset in range(min(SHINGLE, len(words))):
            combined = (combined ^ hashes[offset : offset + count]) * _MULTIPLIER
            combined ^= combined >> np.uint64(29)
        return set(combined.tolist())

    def _hash(self, word: str) -> int:
        known = self._words.get(word)
        if known is None:
            known = self._words[word] = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big")
        return known
