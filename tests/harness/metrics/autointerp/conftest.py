"""A small world of made-up text in which it is known when a unit fires."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from harness.metrics.autointerp.collect import WantedContexts, collect
from harness.metrics.autointerp.contexts import UnitContexts
from harness.metrics.autointerp.firings import Text

NOUNS = [" cat", " dog", " house", " tree", " river", " stone"]
PHRASES = [
    [" the", "NOUN"],
    [" a", "NOUN"],
    ["$", "42"],
    ["$", "7"],
    ["$", "x"],
    [" 42"],
    ["7", "."],
    ["(", "NOUN", ")"],
    ["[", "x", "]"],
    [",", "NOUN"],
    ["\n"],
]
PIECES = sorted({piece for phrase in PHRASES for piece in phrase} - {"NOUN"} | set(NOUNS))
DOCUMENTS, LENGTH = 60, 120


@dataclass(frozen=True)
class World:
    """ids `[documents, length]`; document i is sequence i. fires(name): whether the planted unit fires, `[tokens]`."""

    ids: np.ndarray

    @property
    def pieces(self) -> list[str]:
        return [PIECES[i] for i in self.ids.reshape(-1)]

    def text(self, before: int = 15, after: int = 4) -> Text:
        n = self.ids.size
        here, opens = np.arange(n), np.arange(n) // LENGTH * LENGTH
        pieces = np.empty(n, object)
        pieces[:] = self.pieces
        return Text(
            self.ids.reshape(-1),
            pieces,
            np.arange(n) // LENGTH,
            np.maximum(here - before, opens),
            np.minimum(here + after + 1, opens + LENGTH),
            np.arange(n) // LENGTH % 2 == 0,
        )

    def fires(self, name: str) -> np.ndarray:
        pieces = self.pieces
        before = ["" if i % LENGTH == 0 else pieces[i - 1] for i in range(len(pieces))]
        if name == "the":
            return np.array([piece == " the" for piece in pieces])
        if name == "money":
            return np.array([p.strip().isdigit() and b == "$" for p, b in zip(pieces, before, strict=True)])
        if name == "closing":
            return np.array([piece in (")", "]") for piece in pieces])
        # A concept that no rule on tokens sees: a coin, in every third document.
        coin = np.random.default_rng(9).random(len(pieces)) < 0.15
        return coin & (np.arange(len(pieces)) // LENGTH % 3 == 0)

    def unit(self, name: str, wanted: WantedContexts, seed: int = 0) -> UnitContexts | None:
        generator = np.random.default_rng(seed)
        tokens = np.flatnonzero(self.fires(name))
        strengths = (1 + generator.random(len(tokens))).astype(np.float32)
        return collect(self.text(), "mlp_out.0", 3, tokens, strengths, (), wanted, generator)


@pytest.fixture(scope="session")
def world() -> World:
    generator = np.random.default_rng(1)
    rows = []
    for _ in range(DOCUMENTS):
        row: list[str] = []
        while len(row) < LENGTH:
            phrase = PHRASES[generator.integers(len(PHRASES))]
            row += [NOUNS[generator.integers(len(NOUNS))] if piece == "NOUN" else piece for piece in phrase]
        rows.append([PIECES.index(piece) for piece in row[:LENGTH]])
    return World(np.array(rows))


@pytest.fixture(scope="session")
def wanted() -> WantedContexts:
    return WantedContexts(
        explain=40, explain_silent=60, score=20, score_silent=20, near_misses=10, quantiles=5, least=10
    )


@pytest.fixture(scope="session")
def planted(world: World, wanted: WantedContexts) -> Callable[[str], UnitContexts]:
    def make(name: str) -> UnitContexts:
        unit = world.unit(name, wanted)
        assert unit is not None
        return unit

    return make
