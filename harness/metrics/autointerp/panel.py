"""Who explains and who scores, as the options say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from harness.metrics.autointerp.contexts import Explainer, Explanation, Scorer, UnitContexts
from harness.metrics.autointerp.judge import ChatOptions, JudgeOptions
from harness.metrics.autointerp.llm_explainer import LlmExplainer
from harness.metrics.autointerp.mining import RuleExplainer
from harness.metrics.autointerp.scorer import SCORERS


@dataclass(frozen=True)
class Panel:
    explainer: Explainer
    scorers: tuple[Scorer, ...]


@dataclass(frozen=True)
class WithLogits:
    """Adds to an explanation what the unit's write vector raises and lowers. It says nothing of where the unit fires,
    so what can be executed stays the same."""

    explainer: Explainer

    def explain(self, unit: UnitContexts) -> Explanation:
        return self.explain_all([unit])[0]

    def explain_all(self, units: Sequence[UnitContexts]) -> list[Explanation]:
        found = []
        for unit, said in zip(units, self.explainer.explain_all(units), strict=True):
            parts = [said.text]
            for verb, tokens in (("raises", unit.promoted), ("lowers", unit.suppressed)):
                if tokens:
                    parts.append(f"It {verb} the logits of {', '.join(map(repr, tokens))}.")
            found.append(Explanation(" ".join(parts), f"{said.by}+logit", said.predict))
        return found


@contextmanager
def panel(
    options: JudgeOptions, explainer: Literal["rule", "llm"], logit: bool, scorers: tuple[str, ...], seed: int
) -> Iterator[Panel]:
    """The judge, where one is needed, is closed with the block."""
    judge = options.open() if isinstance(options, ChatOptions) else None
    try:
        if explainer == "llm":
            assert judge is not None, "options see to it"
            explains: Explainer = LlmExplainer(judge, promoted=logit)
        else:
            explains = WithLogits(RuleExplainer()) if logit else RuleExplainer()
        yield Panel(explains, tuple(SCORERS[name].make(judge, seed) for name in scorers))
    finally:
        if judge is not None:
            judge.close()
