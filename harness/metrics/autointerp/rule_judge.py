"""No model at all: rules are mined and executed (mining.py, rules.py)."""

from __future__ import annotations

from typing import Literal

from harness.metrics.autointerp.judge import JudgeOptions, register


class RuleJudge(JudgeOptions):
    """Asks nobody."""

    kind: Literal["rule"] = "rule"


register("rule", RuleJudge)
