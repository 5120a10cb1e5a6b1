"""From predictions to figures: of one unit, and of a system's units together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata

from harness.metrics.autointerp.contexts import (
    NEAR_MISS,
    SAME_TOKEN,
    Explanation,
    Scored,
    Scorer,
    UnitContexts,
    items,
    plain_items,
)
from harness.metrics.autointerp.judge import Judge
from harness.metrics.autointerp.scorer import register_scorer

# What a scorer's answers are summed up by, first of all.
MAIN = {"simulation": "pearson", "embedding": "auroc"}
THRESHOLD = 0.5  # of a prediction between 0 and 1


def main_statistic(scorer: str) -> str:
    return MAIN.get(scorer, "balanced_accuracy")


def balanced_accuracy(labels: np.ndarray, predictions: np.ndarray) -> float:
    """(share of positives predicted positive + share of negatives predicted negative) / 2, of boolean arrays. 1/2 for
    any constant answer; nan without both classes."""
    if labels.all() or not labels.any():
        return float("nan")
    return float((predictions[labels].mean() + (~predictions[~labels]).mean()) / 2)


def f1(labels: np.ndarray, predictions: np.ndarray) -> float:
    """2 TP / (2 TP + FP + FN), of boolean arrays; nan without a positive."""
    if not labels.any():
        return float("nan")
    hits = (labels & predictions).sum()
    return float(2 * hits / (labels.sum() + predictions.sum()))


def auroc(labels: np.ndarray, scores: np.ndarray) -> float:
    """P(a positive scores above a negative), ties half. labels boolean; nan without both classes."""
    n_positive, n_negative = labels.sum(), (~labels).sum()
    if n_positive == 0 or n_negative == 0:
        return float("nan")
    ranks = rankdata(scores)
    return float((ranks[labels].sum() - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))


def pearson(truth: np.ndarray, predictions: np.ndarray) -> float:
    """Pearson's correlation. A constant prediction says nothing: 0. A constant truth cannot be predicted: nan."""
    if truth.std() == 0:
        return float("nan")
    if predictions.std() == 0:
        return 0.0
    return float(np.corrcoef(truth, predictions)[0, 1])


def statistics(scored: Scored) -> dict[str, float]:
    """All figures of one unit under one scorer; nan where a class is missing.

    Yes or no: balanced_accuracy and f1 at 1/2, auroc where answers are graded, recall_q<i> of each quantile of the
    unit's activations. Embedding: auroc. Simulation: pearson over the tokens of all windows, and pearson_q<i> over the
    windows of one quantile. `_near`: with near misses as the only negatives; `_same_token`: with silent windows around
    a token that the unit fires on elsewhere, which stand in no other figure.
    """
    labels, predictions = np.asarray(scored.labels, float), np.asarray(scored.predictions, float)
    groups = np.asarray(scored.groups, int) if scored.groups else np.full(len(labels), NEAR_MISS - 1)
    quantiles = [int(q) for q in np.unique(groups) if q >= 0]
    if not len(labels):
        return {main_statistic(scored.name): float("nan")}
    if scored.name == "simulation":
        by_quantile = {f"pearson_q{q}": pearson(labels[groups == q], predictions[groups == q]) for q in quantiles}
        return {"pearson": pearson(labels, predictions), **by_quantile}
    if (groups == SAME_TOKEN).any():
        same = (labels > 0) | (groups == SAME_TOKEN)
        fires, yes = labels[same] > 0, predictions[same] > THRESHOLD
        on_same = auroc(fires, predictions[same]) if scored.name == "embedding" else balanced_accuracy(fires, yes)
        rest = groups != SAME_TOKEN
        others = statistics(
            Scored(scored.name, tuple(labels[rest]), tuple(predictions[rest]), scored.unparsable, tuple(groups[rest]))
        )
        return others | {f"{main_statistic(scored.name)}_same_token": on_same}
    fires = labels > 0
    near = fires | (groups == NEAR_MISS)
    any_near = bool((groups == NEAR_MISS).any())
    found: dict[str, float] = {}
    if scored.name != "embedding":
        yes = predictions > THRESHOLD
        found["balanced_accuracy"] = balanced_accuracy(fires, yes)
        if any_near:
            found["balanced_accuracy_near"] = balanced_accuracy(fires[near], yes[near])
        found["f1"] = f1(fires, yes)
        found |= {f"recall_q{q}": float(yes[groups == q].mean()) for q in quantiles}
    if scored.name == "embedding" or not np.isin(predictions, (0.0, 1.0)).all():
        found["auroc"] = auroc(fires, predictions)
        if any_near:
            found["auroc_near"] = auroc(fires[near], predictions[near])
    return found


class ExecutionScorer:
    """Runs an explanation that can be run: does it fire on the trigger, where the unit does?"""

    name = "rule"

    def score(self, explanation: Explanation, unit: UnitContexts) -> Scored:
        predict = _executable(explanation)
        asked = items(unit)
        predictions = tuple(float(predict(item.context)[item.context.trigger]) for item in asked)
        labels, groups = tuple(item.label for item in asked), tuple(item.group for item in asked)
        return Scored(self.name, labels, predictions, 0, groups)

    def score_all(self, pairs: Sequence[tuple[Explanation, UnitContexts]]) -> list[Scored]:
        return [self.score(explanation, unit) for explanation, unit in pairs]


class ExecutedSimulation:
    """Runs an explanation over whole windows, activating and random silent ones, against the true activations."""

    name = "simulation"

    def score(self, explanation: Explanation, unit: UnitContexts) -> Scored:
        predict = _executable(explanation)
        asked = plain_items(unit)
        labels = tuple(a for item in asked for a in item.context.activations)
        predictions = tuple(float(p) for item in asked for p in predict(item.context))
        groups = tuple(item.group for item in asked for _ in item.context.tokens)
        return Scored(self.name, labels, predictions, 0, groups)

    def score_all(self, pairs: Sequence[tuple[Explanation, UnitContexts]]) -> list[Scored]:
        return [self.score(explanation, unit) for explanation, unit in pairs]


def _executable(explanation: Explanation):
    if explanation.predict is None:
        raise ValueError(f"an explanation by {explanation.by!r} cannot be executed; use explainer rule")
    return explanation.predict


def _simulation(judge: Judge | None, _seed: int) -> Scorer:
    """By whoever explains: rules are executed, a judge is asked."""
    if judge is None:
        return ExecutedSimulation()
    from harness.metrics.autointerp.llm_scorers import LlmSimulation

    return LlmSimulation(judge)


register_scorer("rule", lambda _judge, _seed: ExecutionScorer())
register_scorer("simulation", _simulation)
