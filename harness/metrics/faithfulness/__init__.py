"""What a unit does: whether its write says what taking it away does, whether a short description keeps it, what is left
of the model on a part of its units.

`predicted.py` compares the direct path with the effect that is measured, `legibility.py` puts a described value in
place of the unit's own, `subsets.py` keeps some units of each token. Controls: directions drawn at random and as long,
other units' rules, units kept at random, and the untrained subject's row. [U: the figures]
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from pydantic import Field

from harness.base.settings import Strict
from harness.metrics.concepts.tellers import concepts_of
from harness.metrics.concepts.tokens import Wanted
from harness.metrics.faithfulness import legibility, predicted, steering
from harness.metrics.faithfulness.curves import curves
from harness.metrics.faithfulness.sampling import Sample, draw
from harness.metrics.joint.pairs import Fired, fired
from harness.metrics.metric import register
from harness.systems.evaluation import Evaluation
from harness.systems.system import Site
from harness.tables.measurement import Direction, Measurement, not_applicable
from harness.tables.statistics import unit_bootstrap

VERSION = 2
LEAST = 10  # units below which nothing is said
MAIN = ("correlation_above_random", "explained_above_random", "legible_rule")


class Options(Strict):
    """How much is asked."""

    units: int = Field(default=96, ge=2, description="Units in all, equally many of every site.")
    contexts: int = Field(default=48, ge=2, description="Tokens of each unit, on which it fires.")
    active: int = Field(default=16, ge=1, description="Strongest units of a token at a site that count as firing.")
    sequences: int = Field(default=32, ge=1, description="Evaluation sequences that subsets of units are read on.")
    concepts: int = Field(default=32, ge=0, description="Concepts that are steered to, drawn evenly from their kinds.")
    seed: int = Field(default=0, ge=0, description="Draws units, contexts, directions and subsets.")


def measure(evaluation: Evaluation, options: Options) -> list[Measurement]:
    """Of units that fire often enough, drawn equally from every site; intervals resample units, those of losses
    documents.

    - correlation: cosine between the logits' change that a unit's write alone predicts and the change when it is taken
      away; explained: share of the latter's square (−1 at least); <figure>_random: of directions as long and as far
      along the stream, in the same contexts; <figure>_above_random; correlation_layer_<n>, ..._above_random. In the
      last layer only the norm's scale is between the two; further down, what later layers make of it;
    - through_rest: share of the effect, of units before the last site, that runs through what no unit of a later site
      explains: a dictionary's error, a side MLP;
    - legible_mean, legible_token, legible_rule: share of the effect that is left when the unit's value is the same
      wherever it fires, depends on the token alone, or on a mined rule; legible_other: on a rule of another unit that
      matches as often. An untrained model's units are told by the token: read it beside that row;
    - random_<share>, best_<share>, worst_<share>, against_<share>: bits per byte above the model when each token keeps
      that percentage of its units of every site: at random, those that matter most or least first, chosen against the
      model; count_<k>: the k that matter most; none. <figure>_lost: as a share of what is lost with none. sufficiency:
      random less best, necessity: worst less random, such shares, mean over percentages; units_90: units a token and
      site, what matters most first, from which on at most a tenth is lost;
    - steered: log odds, that the tokens a concept speaks through gain where it does not hold, when the unit that tells
      it is held high; steered_random: another unit that fires as often.
    """
    rng = np.random.default_rng([options.seed, 31])
    dev = fired(evaluation, evaluation.batches(evaluation.codes_sequences, dev=True), options.active)
    test = fired(evaluation, evaluation.batches(evaluation.codes_sequences), options.active)
    sample = draw(test, options.units, options.contexts, rng)
    found = curves(evaluation, options.sequences, options.seed).measurements()
    if len(sample.units) < LEAST:
        reason = f"underpowered: {len(sample.units)} units fire on {options.contexts} tokens, {LEAST} needed"
        return found + not_applicable([f"faithfulness/{name}" for name in MAIN], VERSION, reason)
    found = _effects(evaluation, sample, rng) + _legible(evaluation, dev, test, sample, options, rng) + found
    return found + _steered(evaluation, dev, options, rng)


def _effects(evaluation: Evaluation, sample: Sample, rng: np.random.Generator) -> list[Measurement]:
    effects = predicted.effects(evaluation.system, evaluation.split, sample, rng)
    layer = np.array([site.layer for site, _ in sample.units])
    saw = f"{len(sample.units)} units in {len(sample) // len(sample.units)} contexts each"
    found = []
    for name, own, random in (
        ("correlation", effects.units.correlation(), effects.random.correlation()),
        ("explained", effects.units.explained(), effects.random.explained()),
    ):
        found += [
            _mean(evaluation, name, own, "none", saw),
            _mean(evaluation, f"{name}_random", random, "none", saw),
            _mean(evaluation, f"{name}_above_random", own - random, "higher", saw),
        ]
        if name == "correlation":
            for number in np.unique(layer):
                of, here = f"correlation_layer_{number}", layer == number
                found.append(_mean(evaluation, of, own[here], "none", saw))
                found.append(_mean(evaluation, f"{of}_above_random", (own - random)[here], "none", saw))
    held, before = effects.through_units, layer < layer.max()
    if not held.mm[before].sum() > 0:
        return [*found, *not_applicable(["faithfulness/through_rest"], VERSION, "no unit is before another site")]
    through = 1 - np.divide(held.pm, held.mm, out=np.ones(len(held.mm)), where=held.mm > 0)
    weighted = float(np.average(through[before], weights=held.mm[before]))
    replicates = unit_bootstrap(through[before], held.mm[before], evaluation.resamples)
    rest = Measurement("faithfulness/through_rest", weighted, "share", "none", VERSION, replicates, "units", saw=saw)
    return [*found, rest]


def _legible(
    evaluation: Evaluation, dev: dict[Site, Fired], test: dict[Site, Fired], sample: Sample, options: Options,
    rng: np.random.Generator,
) -> list[Measurement]:  # fmt: skip
    texts = [legibility.pieces(evaluation, dev=split) for split in (True, False)]
    described = [
        legibility.describe(site, unit, dev[site], texts[0], test[site], texts[1], rng)
        for site, unit in sample.units
        if (dev[site].unit == unit).sum() >= legibility.LEAST
    ]
    names = [f"legible_{name}" for name in legibility.DESCRIPTIONS]
    if len(described) < LEAST:
        reason = f"underpowered: {len(described)} units fire on {legibility.LEAST} tokens of dev, {LEAST} needed"
        return not_applicable([f"faithfulness/{name}" for name in names], VERSION, reason)
    described = legibility.with_other(described)
    drawn = legibility.contexts(described, options.contexts // 2, rng)
    share = legibility.survives(evaluation.system, evaluation.split, described, drawn)
    saw = f"{len(described)} units"
    return [
        *(_mean(evaluation, name, share[:, place], "none", saw) for place, name in enumerate(names)),
        _mean(evaluation, "legible_rule_above_other", share[:, -2] - share[:, -1], "higher", saw),
    ]


def _steered(
    evaluation: Evaluation, dev: dict[Site, Fired], options: Options, rng: np.random.Generator
) -> list[Measurement]:
    asking = concepts_of(evaluation, Wanted(50, 3, options.concepts, options.seed))
    chosen = steering.choose(evaluation, dev, asking, evaluation.split.length, rng)
    if len(chosen.own) < 2:
        reason = f"{len(chosen.own)} of {len(asking.concepts)} concepts have a unit with dev F1 {steering.TOLD}"
        return not_applicable(["faithfulness/steered"], VERSION, reason)
    sequences = min(options.sequences, evaluation.codes_sequences)
    own, other = (steering.log_odds(evaluation, units, sequences) for units in (chosen.own, chosen.other))
    saw = f"{len(own)} concepts that a unit tells"

    def stated(name: str, values: np.ndarray, direction: Direction) -> Measurement:
        return replace(_mean(evaluation, name, values, direction, saw), unit="log odds")

    return [
        stated("steered", own, "higher"),
        stated("steered_random", other, "none"),
        stated("steered_above_random", own - other, "higher"),
    ]


def _mean(evaluation: Evaluation, name: str, values: np.ndarray, direction: Direction, saw: str) -> Measurement:
    replicates = unit_bootstrap(values, None, evaluation.resamples)
    return Measurement(
        f"faithfulness/{name}", float(values.mean()), "share", direction, VERSION, replicates, "units", saw=saw
    )


register("faithfulness", measure, Options, VERSION, labels=True)
