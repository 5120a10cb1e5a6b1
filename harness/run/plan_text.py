"""`harness plan`: the budgets of an experiment as text."""

from __future__ import annotations

from harness.experiment.matching import Line
from harness.run.estimate import RowEstimate
from harness.run.plan import Plan
from harness.training.trials import Choice

_HEADER = (
    "system",
    "parameters",
    "active",
    "forward FLOP/token",
    "tokens",
    "dictionary tokens",
    "training FLOP",
    "of it teacher",
    "upcycled from",
    "collecting",
    "dictionary",
    "trials (beside)",
    "memory GB",
    "time",
    "",
)


def render_plan(plan: Plan, estimates: dict[str, RowEstimate]) -> list[str]:
    """Lines: a table with a row for each system, then what is matched, and what the figures are."""
    seeds = len(plan.experiment.seeds)
    rows = [
        _HEADER,
        *(_cells(line, estimates[line.spec.name], plan.choices.get(line.spec.name)) for line in plan.matching.lines),
    ]
    kept = [i for i in range(len(_HEADER)) if i in (0, len(_HEADER) - 1) or any(row[i] for row in rows[1:])]
    widths = {i: max(len(row[i]) for row in rows) for i in kept}
    lines = [
        "  ".join(row[i].ljust(widths[i]) if i in (0, kept[-1]) else row[i].rjust(widths[i]) for i in kept).rstrip()
        for row in rows
    ]
    total = sum(estimate.seconds for estimate in estimates.values()) * seeds
    by = {source: [n for n, e in estimates.items() if e.source == source] for source in ("stored", "timed", "by FLOPs")}
    said = {
        "stored": "from stored runs",
        "timed": "from two training steps timed now",
        "by FLOPs": "from FLOPs alone (too large to try)",
    }
    sources = "; ".join(f"{said[source]}: {', '.join(names)}" for source, names in by.items() if names)
    return [
        *lines,
        "",
        f"matched: {plan.matching.statement}",
        *([] if plan.decided else ["not every trial was made: where a choice will be, the first candidate stands"]),
        f"time to train: {duration(total)} for {seeds} seed{'s' if seeds > 1 else ''}, without metrics; {sources}",
        "FLOP: a multiply-add is two; training is 3 x forward, and Muon's products. Memory: tensors while it trains.",
    ]


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _cells(line: Line, estimate: RowEstimate, choice: Choice | None) -> tuple[str, ...]:
    budget = line.budget
    return (
        line.spec.name,
        f"{budget.size.parameters:,}",
        f"{budget.size.active_parameters:,}",
        f"{budget.size.forward_flops:,.0f}",
        f"{budget.tokens:,}",
        f"{budget.dictionary_tokens:,}" if budget.dictionary_tokens else "",
        f"{budget.training_flops:.3e}",
        f"{budget.teacher_flops:.3e}" if budget.teacher_flops else "",
        f"{budget.origin_flops:.3e}" if budget.origin_flops else "",
        f"{budget.collecting_flops:.3e}" if budget.collecting_flops else "",
        f"{budget.dictionary_flops:.3e}" if budget.dictionary_flops else "",
        f"{choice.planned_flops:.3e}" if choice else "",
        f"{estimate.memory / 1e9:.2f}",
        duration(estimate.seconds),
        "; ".join([*line.notes, *([choice.note()] if choice else [])]),
    )
