"""Auto-interpretation: can a reader, given a unit's contexts, say what it does, and does that hold on other text?

Units are drawn by firing rate (sampling.py); each is explained from contexts of one half of the documents and scored on
contexts of the other half (collect.py), by a rule that is mined and executed or by a chat judge (panel.py), beside
controls (controls.py). After Bills et al. 2023 (explain, simulate, score), Paulo et al., arXiv 2410.13928 (detection,
fuzzing, embedding), SAEBench (sample sizes); the rules, the near misses and the post-stratification are ours.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from harness.base.settings import Strict
from harness.metrics.autointerp import ablation, controls, output
from harness.metrics.autointerp.collect import WantedContexts, collect
from harness.metrics.autointerp.contexts import Explanation, Scored, UnitContexts
from harness.metrics.autointerp.firings import Firings, Text
from harness.metrics.autointerp.judge import AnyJudge, ChatOptions
from harness.metrics.autointerp.merged import SIZES, as_merged, merged
from harness.metrics.autointerp.panel import Panel, panel
from harness.metrics.autointerp.random_dictionary import paired, random_dictionary
from harness.metrics.autointerp.sampling import Sample, draw
from harness.metrics.autointerp.scorer import SCORERS
from harness.metrics.autointerp.scoring import main_statistic, statistics
from harness.metrics.autointerp.writes import logits_of, mean_writes, neighbours
from harness.metrics.metric import register
from harness.systems.evaluation import Evaluation
from harness.systems.system import Site
from harness.tables.measurement import Direction, Measurement
from harness.tables.statistics import unit_bootstrap

log = logging.getLogger(__name__)

VERSION = 3
OWN = "own"
NEIGHBOURS = 3  # by what they write, and as many by co-activation
WRITE_SEQUENCES = 16  # that mean write vectors are taken over


class Options(Strict):
    """How many units and contexts, who explains and who scores. Numbers of contexts are a unit's."""

    units: int = Field(default=100, ge=2, description="Explained in each system.")
    judge: AnyJudge = Field(default_factory=dict, validate_default=True, description="kind rule asks no model.")
    explainer: Literal["rule", "llm"] | None = Field(
        default=None, description="Left out: rule where the judge is rule, else llm."
    )
    logit: bool = Field(default=False, description="Explanations also say which tokens a unit promotes and suppresses.")
    scorers: tuple[str, ...] = Field(
        default=(),
        description="Left out: rule, simulation; with a chat judge detection, fuzzing. embedding needs the extra of "
        "that name, and on sentences of rules it was no better than chance.",
    )
    strongest: int = Field(
        default=32, ge=1, description="A unit fires where it is among this many strongest units of a token."
    )
    before: int = Field(default=15, ge=8, description="Tokens of a window left of its trigger.")
    after: int = Field(default=4, ge=0, description="Tokens of a window right of its trigger.")
    explain: int = Field(default=40, ge=2, description="Activating contexts to explain from.")
    explain_silent: int = Field(default=60, ge=2, description="Silent ones, half of them near misses.")
    score: int = Field(default=20, ge=2, description="Activating contexts to score on.")
    score_silent: int = Field(default=20, ge=2, description="Random silent ones.")
    near_misses: int = Field(default=10, ge=0)
    same_token: int = Field(default=10, ge=0, description="Silent ones on a token that the unit fires on elsewhere.")
    quantiles: int = Field(default=5, ge=1, description="Of a unit's activations; contexts come from each alike.")
    least: int = Field(default=10, ge=2, description="Fewer contexts of a kind than this: too few, and counted so.")
    density_edges: tuple[float, ...] = Field(
        default=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3), min_length=2, description="Bounds of the strata of firing rates."
    )
    promoted: int = Field(default=8, ge=1, description="Tokens shown that a unit promotes, and suppresses.")
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _fits_together(self) -> Options:
        if list(self.density_edges) != sorted(set(self.density_edges)):
            raise ValueError(f"density_edges {self.density_edges} must ascend")
        if self.least > min(self.explain, self.explain_silent // 2, self.score, self.score_silent):
            raise ValueError(
                f"least {self.least} is more than the contexts asked for of some kind: explain {self.explain}, half of "
                f"explain_silent {self.explain_silent}, score {self.score}, score_silent {self.score_silent}"
            )
        if not self.chats:
            if self.explainer == "llm":
                raise ValueError("explainer llm needs a chat judge: set judge.base_url or judge.kind=local")
            chat = sorted(name for name in self.scorers if SCORERS[name].chat)
            if chat:
                raise ValueError(f"scorer {chat[0]} needs a chat judge: set judge.base_url or judge.kind=local")
        if "rule" in self.scorers and self.who_explains == "llm":
            raise ValueError("scorer rule executes rules: it needs explainer rule")
        return self

    @field_validator("scorers")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            SCORERS.named(name)  # ValueError: what there is
        return value

    def modules(self) -> tuple[str, ...]:
        return (*super().modules(), *(SCORERS.modules()[name] for name in self.who_scores))

    @property
    def chats(self) -> bool:
        return isinstance(self.judge, ChatOptions)

    @property
    def who_explains(self) -> Literal["rule", "llm"]:
        return self.explainer or ("llm" if self.chats else "rule")

    @property
    def who_scores(self) -> tuple[str, ...]:
        if self.scorers:
            return self.scorers
        return ("detection", "fuzzing") if self.chats else ("rule", "simulation")

    @property
    def wanted(self) -> WantedContexts:
        return WantedContexts(
            self.explain, self.explain_silent, self.score, self.score_silent, self.near_misses, self.quantiles,
            self.least, self.same_token,
        )  # fmt: skip


def measure(evaluation: Evaluation, options: Options) -> list[Measurement]:
    """Over the sampled units of all sites together, post-stratified to equal strata of firing rate; intervals resample
    units.

    - <scorer>_<statistic>: scoring.py says what they are; `_near`: against near misses alone; `_firing_weighted`: of
      an average firing in place of an average unit.
    - autointerp_quantiles/…: by quantile of the unit's activation, 0 the lowest.
    - <scorer>_<statistic>_above_random, the headline: the unit's score minus that of a unit of a random dictionary that
      fires as often; <scorer>_random_as_merged: how many of the system's units, merged, read as badly as those do.
    - _same_token: against windows around a token that the unit fires on elsewhere, so that context has to tell.
    - ablation_over_random: what taking the unit away does to the next token, over taking away as much of a random
      direction; geometric mean over units.
    - autointerp_controls/<scorer>_<statistic>_<control>; _usable: 1 where the lower end of the 95% interval of the
      score minus each control but merged units is above 0, the random dictionary among them.
    - units, too_few_contexts (of the units drawn), outside_strata (of all units, dead ones too), scored_share (of the
      units that fire, those that the sample stands for), empty_strata.
    """
    text = Text.of(evaluation, options.before, options.after, np.random.default_rng([options.seed, 1]))
    sites = {
        site: Firings.of(str(site), evaluation.load_codes(site), options.strongest) for site in evaluation.system.sites
    }
    writes = mean_writes(evaluation, sites, WRITE_SEQUENCES)
    sample = _sample(evaluation, options, text, sites, writes)
    found = _counts(sample, sites)
    if len(sample.units) < 2:
        log.warning("auto-interpretation: %d of %d units drawn have enough contexts; nothing to score",
                    len(sample.units), sample.tried)  # fmt: skip
        return found
    others = _others(evaluation, options, text, sites, writes, sample)
    with panel(options.judge, options.who_explains, options.logit, options.who_scores, options.seed) as chosen:
        explanations, scores, unparsable = _study(chosen, sample, others, options)
    found += _figures(scores, sample, options, evaluation.resamples)
    found.append(_ablation(evaluation, sample, options))
    if options.chats:
        found.append(Measurement("autointerp/unparsable", unparsable, "share of answers", "lower", VERSION))
    columns = {f"{scorer}_{name}": values for scorer, of in scores[OWN].items() for name, values in of.items()}
    for control in controls.CONTROLS:
        for scorer, of in scores[control].items():
            columns[f"{control}_{scorer}"] = of[main_statistic(scorer)]
    output.write(output.rows(sample.units, explanations, columns), evaluation.artifacts, evaluation.system.name)
    return found


def _others(
    evaluation: Evaluation,
    options: Options,
    text: Text,
    sites: Mapping[Site, Firings],
    writes: Mapping[Site, Tensor],
    sample: Sample,
) -> dict[str, list[UnitContexts | None]]:
    """Contexts of the controls that are explained and scored anew, one for every unit of the sample."""
    units, wanted, seed = sample.units, options.wanted, options.seed
    by_name = {str(site): written for site, written in writes.items()}

    def alike(firings: Firings, column: int) -> list[np.ndarray]:
        return neighbours(firings, column, by_name[firings.site], NEIGHBOURS, options.least)

    dictionary = random_dictionary(evaluation, sites, options.strongest, seed)
    return {
        "shuffled": controls.shuffled(units, text, wanted, seed),
        controls.RANDOM: paired(units, dictionary, text, wanted, NEIGHBOURS, seed),
        **{f"merged_{size}": merged(units, size, text, wanted, alike, seed) for size in SIZES},
    }


def _sample(
    evaluation: Evaluation,
    options: Options,
    text: Text,
    sites: Mapping[Site, Firings],
    writes: Mapping[Site, Tensor],
) -> Sample:
    def contexts_of(site: Site, column: int) -> UnitContexts | None:
        firings = sites[site]
        tokens, strengths = firings.of_column(column)
        alike = neighbours(firings, column, writes[site], NEIGHBOURS, options.least)
        generator = firings.generator(column, options.seed)
        found = collect(
            text, str(site), int(firings.units[column]), tokens, strengths, alike, options.wanted, generator
        )
        if found is None:
            return None
        promoted, suppressed = logits_of(evaluation, writes[site][column], options.promoted)
        return UnitContexts(**{**vars(found), "promoted": promoted, "suppressed": suppressed})

    return draw(sites, options.units, options.density_edges, contexts_of, np.random.default_rng([options.seed, 2]))


# Set of explanations (own, or a control) -> scorer -> statistic -> a figure for every sampled unit, nan where none.
Scores = dict[str, dict[str, dict[str, np.ndarray]]]


def _study(
    chosen: Panel, sample: Sample, others: Mapping[str, Sequence[UnitContexts | None]], options: Options
) -> tuple[list[Explanation], Scores, float]:
    """Explanations of the sampled units; scores of theirs and of the controls; share of answers that do not parse."""
    units = [drawn.contexts for drawn in sample.units]
    explanations = chosen.explainer.explain_all(units)
    swapped = controls.of_another(explanations, np.random.default_rng([options.seed, 3]))
    asked: dict[str, list[tuple[Explanation, UnitContexts] | None]] = {
        OWN: list(zip(explanations, units, strict=True)),
        "constant": [(controls.constant(), unit) for unit in units],
        "another_unit": list(zip(swapped, units, strict=True)),
    }
    for name, made in others.items():
        there = [unit for unit in made if unit is not None]
        said = iter(chosen.explainer.explain_all(there))
        asked[name] = [None if unit is None else (next(said), unit) for unit in made]

    scores: Scores = {name: {} for name in asked}
    lost = answers = 0
    for scorer in chosen.scorers:
        for name, pairs in asked.items():
            scored = scorer.score_all([pair for pair in pairs if pair is not None])
            _check(scored, options)
            lost += sum(one.unparsable for one in scored)
            answers += sum(len(one.labels) + one.unparsable for one in scored)
            figures = iter([statistics(one) for one in scored])
            scores[name][scorer.name] = _columns([{} if pair is None else next(figures) for pair in pairs], scorer.name)
    return explanations, scores, lost / max(1, answers)


def _check(scored: Sequence[Scored], options: Options) -> None:
    if isinstance(options.judge, ChatOptions) and any(one.unparsable for one in scored):
        from harness.metrics.autointerp.llm_scorers import check_unparsable

        check_unparsable(scored, options.judge.unparsable_limit)


def _columns(figures: Sequence[Mapping[str, float]], scorer: str) -> dict[str, np.ndarray]:
    """Statistic → a figure a unit; the main one first, quantiles last and ascending, whichever unit has which."""
    present = {name for of_unit in figures for name in of_unit} | {main_statistic(scorer)}
    names = sorted(present, key=lambda name: (name != main_statistic(scorer), "_q" in name, name))
    return {name: np.array([of_unit.get(name, np.nan) for of_unit in figures]) for name in names}


def _ablation(evaluation: Evaluation, sample: Sample, options: Options) -> Measurement:
    ratios = ablation.log_ratios(sample.units, evaluation, options.seed)
    weights = np.array([drawn.weight for drawn in sample.units])
    replicates = np.exp(unit_bootstrap(ratios, weights, evaluation.resamples, options.seed))
    mean = float(np.exp((ratios * weights).sum() / weights.sum()))
    return Measurement("autointerp/ablation_over_random", mean, "ratio", "higher", VERSION, replicates, "units")


def _counts(sample: Sample, sites: Mapping[Site, Firings]) -> list[Measurement]:
    firing = sum(len(firings.units) for firings in sites.values())
    inside = (1 - sample.outside) * sum(firings.n_units for firings in sites.values())
    enough = 1 - sample.too_few / max(1, sample.tried)
    plain: list[tuple[str, float, str, Direction]] = [
        ("units", len(sample.units), "units", "none"),
        ("too_few_contexts", sample.too_few / max(1, sample.tried), "share of units drawn", "none"),
        ("outside_strata", sample.outside, "share of units", "none"),
        ("scored_share", enough * inside / max(1, firing), "share of units that fire", "none"),
        ("empty_strata", len(sample.empty), "strata", "none"),
    ]
    return [Measurement(f"autointerp/{name}", value, unit, way, VERSION) for name, value, unit, way in plain]


def _figures(scores: Scores, sample: Sample, options: Options, resamples: int) -> list[Measurement]:
    weights = np.array([drawn.weight for drawn in sample.units])
    by_firing = np.array([drawn.firing_weight for drawn in sample.units])
    found: list[Measurement] = []

    def add(name: str, values: np.ndarray, by: np.ndarray, direction: Direction) -> np.ndarray | None:
        there = np.isfinite(values)
        if not there.any():
            return None
        replicates = unit_bootstrap(values[there], by[there], resamples, options.seed)
        mean = float((values[there] * by[there]).sum() / by[there].sum())
        found.append(Measurement(name, mean, "", direction, VERSION, replicates, "units"))
        return replicates

    for scorer, of_scorer in scores[OWN].items():
        main = main_statistic(scorer)
        for name, values in of_scorer.items():
            family = "autointerp_quantiles" if "_q" in name else "autointerp"
            add(f"{family}/{scorer}_{name}", values, weights, "none" if "_q" in name else "higher")
        add(f"autointerp/{scorer}_{main}_firing_weighted", of_scorer[main], by_firing, "higher")
        for control in controls.CONTROLS:
            add(f"autointerp_controls/{scorer}_{main}_{control}", scores[control][scorer][main], weights, "none")
        random = scores[controls.RANDOM][scorer][main]
        add(f"autointerp/{scorer}_{main}_above_random", of_scorer[main] - random, weights, "higher")
        found += _as_merged(scorer, scores, weights, resamples, options.seed)
        usable = all(
            _clearly_above(of_scorer[main], scores[control][scorer][main], weights, resamples, options.seed)
            for control in controls.OF_NOTHING
        )
        if not usable:
            log.warning("auto-interpretation: scorer %s is not clearly above its controls: not usable here", scorer)
        found.append(
            Measurement(f"autointerp_controls/{scorer}_usable", float(usable), "1 if so", "none", VERSION)
        )  # fmt: skip
    return found


def _as_merged(scorer: str, scores: Scores, weights: np.ndarray, resamples: int, seed: int) -> list[Measurement]:
    """How many merged units read as a random direction does, over the units that have all of these scores."""
    main = main_statistic(scorer)
    names = (OWN, *controls.MERGED, controls.RANDOM)
    columns = np.stack([scores[name][scorer][main] for name in names])  # [4, units]
    there = np.isfinite(columns).all(0)
    if there.sum() < 2:
        return []
    kept, by = columns[:, there], weights[there]
    drawn = np.stack([unit_bootstrap(values, by, resamples, seed) for values in kept])  # [4, resamples]
    means = (kept * by).sum(1) / by.sum()
    value = float(as_merged(means[0], means[1:3], means[3]))
    replicates = as_merged(drawn[0], drawn[1:3], drawn[3])
    name = f"autointerp/{scorer}_random_as_merged"
    return [Measurement(name, value, "units merged", "higher", VERSION, replicates, "units")]


def _clearly_above(own: np.ndarray, control: np.ndarray, weights: np.ndarray, resamples: int, seed: int) -> bool:
    """Whether the 95% interval of own − control, unit by unit, is above 0. No control at all: no."""
    gap = own - control
    there = np.isfinite(gap)
    if not there.any():
        return False
    return float(np.quantile(unit_bootstrap(gap[there], weights[there], resamples, seed), 0.025)) > 0


register("autointerp", measure, Options, VERSION)
