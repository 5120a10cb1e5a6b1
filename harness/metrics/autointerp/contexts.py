"""What explainers and scorers see: units in their contexts, explanations, and scored predictions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Context:
    """A window of text around one token.

    document: its id in the split. tokens: the window, each token decoded. activations: the unit's strength on each
    token, 0 where it is silent. trigger: index in the window of the token that the window is about.
    """

    document: int
    tokens: tuple[str, ...]
    activations: tuple[float, ...]
    trigger: int


@dataclass(frozen=True)
class UnitContexts:
    """A unit, and where it fires and is silent.

    The documents of `explain` and `explain_silent` share no member with those of `score`, `score_silent` and
    `near_misses`. explain: strongest first. explain_silent: random ones, then near misses. score_quantiles:
    for each item of `score`, which quantile of the unit's activations its trigger is in, 0 the lowest. near_misses:
    silent where a reader would expect it to fire. same_token: silent around a token that the unit fires on elsewhere,
    so that only context tells. promoted, suppressed: tokens whose logits the unit's write vector raises and lowers
    most.
    """

    site: str
    unit: int
    density: float
    explain: tuple[Context, ...]
    explain_silent: tuple[Context, ...]
    score: tuple[Context, ...]
    score_quantiles: tuple[int, ...]
    score_silent: tuple[Context, ...]
    near_misses: tuple[Context, ...]
    same_token: tuple[Context, ...] = ()
    promoted: tuple[str, ...] = ()
    suppressed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Explanation:
    """What a unit is said to do. by: "rule", "llm", ... predict: the same claim as a function, from a context to one
    number a token (0 or 1, or a predicted activation); None where nothing can be executed."""

    text: str
    by: str
    predict: Callable[[Context], Sequence[float]] | None = None


class Explainer(Protocol):
    """Explains one unit, or many at once: a model is quick only when it has many questions."""

    def explain(self, unit: UnitContexts) -> Explanation: ...

    def explain_all(self, units: Sequence[UnitContexts]) -> list[Explanation]: ...


# Groups of silent items; activating ones have their quantile, from 0. (-3: see llm_scorers.)
RANDOM, NEAR_MISS, SAME_TOKEN = -1, -2, -4


@dataclass(frozen=True)
class Item:
    """A question for a scorer: does the unit fire in this context? label: 1 if it does, at the trigger; where it is 0
    the unit is silent in the whole window. group: RANDOM, NEAR_MISS, SAME_TOKEN, or the quantile of the trigger's
    activation."""

    context: Context
    label: int
    group: int


def items(unit: UnitContexts) -> list[Item]:
    """All that a unit's explanation is scored on, in a fixed order: activating, random silent, near misses,
    silent on the same token."""
    active = zip(unit.score, unit.score_quantiles, strict=True)
    return [
        *(Item(context, 1, quantile) for context, quantile in active),
        *(Item(context, 0, RANDOM) for context in unit.score_silent),
        *(Item(context, 0, NEAR_MISS) for context in unit.near_misses),
        *(Item(context, 0, SAME_TOKEN) for context in unit.same_token),
    ]


def plain_items(unit: UnitContexts) -> list[Item]:
    """Those without near misses and windows on the same token: activating, and random silent."""
    return [item for item in items(unit) if item.group not in (NEAR_MISS, SAME_TOKEN)]


@dataclass(frozen=True)
class Scored:
    """What a scorer predicted from an explanation, beside the truth.

    name: "detection", "fuzzing", "simulation", "embedding" or "rule". labels: 0 or 1; of a simulation, the true
    activation of every token. predictions: 0 or 1, or a score. unparsable: items that got no answer; they are in
    neither labels nor predictions. groups: of each label, as in `Item` (for a simulated token: of its context); empty
    where the scorer keeps none.
    """

    name: str
    labels: tuple[float, ...]
    predictions: tuple[float, ...]
    unparsable: int
    groups: tuple[int, ...] = ()


class Scorer(Protocol):
    name: str

    def score(self, explanation: Explanation, unit: UnitContexts) -> Scored: ...

    def score_all(self, pairs: Sequence[tuple[Explanation, UnitContexts]]) -> list[Scored]: ...
