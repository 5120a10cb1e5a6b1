"""Explanations by a chat judge."""

from __future__ import annotations

from collections.abc import Sequence

from harness.metrics.autointerp.contexts import Explanation, UnitContexts
from harness.metrics.autointerp.judge import Judge
from harness.metrics.autointerp.prompts import explain, read_explanation


class LlmExplainer:
    """One sentence a unit, from its `explain` contexts alone. promoted: the judge also sees the tokens whose logits the
    unit's write vector raises and lowers. A reply that does not parse gives the text "": scorers count the unit's
    items as unparsable instead of asking about nothing."""

    def __init__(self, judge: Judge, *, promoted: bool = False) -> None:
        self._judge, self._promoted = judge, promoted
        self.by = "llm+logit" if promoted else "llm"

    def explain(self, unit: UnitContexts) -> Explanation:
        return self.explain_all([unit])[0]

    def explain_all(self, units: Sequence[UnitContexts]) -> list[Explanation]:
        """All at once: a judge is quick only when it has many questions."""
        replies = self._judge.ask([explain(unit, promoted=self._promoted) for unit in units])
        return [Explanation(read_explanation(reply.text) or "", self.by) for reply in replies]
