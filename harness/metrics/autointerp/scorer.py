"""The names of scorers: what scores explanations, each registered where it is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from harness.metrics.autointerp.contexts import Scorer
from harness.metrics.autointerp.judge import Judge
from kernels.registry import Registry

Make = Callable[[Judge | None, int], Scorer]


@dataclass(frozen=True)
class ScorerKind:
    """`make(judge, seed)`: judge None where no model is asked. chat: it needs one."""

    make: Make
    chat: bool


SCORERS: Registry[ScorerKind] = Registry(
    "scorer", "harness.metrics.autointerp", "harness.scorers", verb="register_scorer"
)


def register_scorer(name: str, make: Make, *, chat: bool = False) -> None:
    """Add a scorer under `name`. ValueError: `name` is taken."""
    SCORERS.register(name, ScorerKind(make, chat))
