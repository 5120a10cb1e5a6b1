"""Does a unit mean one thing? Counted, on a corpus whose tokens say which concepts hold on them.

Everything is chosen on dev (which unit, which threshold, which pair, the probes) and scored on eval; only `needed` and
`explained` describe dev itself. Best-of-many scores are taken over equally many units in every system. `activity.py`
puts units in order, `detection.py` sweeps their thresholds, `predictions.py` scores what is said of each concept,
`pairs.py` combines two units, `purity.py` goes from units to concepts, `probes.py` says what can be read there at all.
Coverage and reconstruction come from board states (Karvonen et al., arXiv 2408.00113, equations 1 and 2), there by
thresholds at shares of a unit's maximum; here every threshold is tried. [U: the equal numbers, the pair gap, purity,
and all floors are ours]
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from harness.base.settings import Strict
from harness.corpus.stored import Batch
from harness.metrics.concepts import probes, sites
from harness.metrics.concepts.activity import Activity, Integers, activity
from harness.metrics.concepts.detection import Detection, detect
from harness.metrics.concepts.pairs import PairScores, both, pair_scores
from harness.metrics.concepts.predictions import (
    Scores,
    best_units,
    expected_best,
    of_sure_units,
    of_units,
    score_predictions,
)
from harness.metrics.concepts.purity import Purity, explained, purity
from harness.metrics.concepts.tokens import Asked, Held, asked, numbered
from harness.metrics.metric import register
from harness.systems.evaluation import Evaluation
from harness.systems.system import Encoded
from harness.tables.measurement import Direction, Measurement, not_applicable
from harness.tables.statistics import proportion_bootstrap

VERSION = 1
FOUND = 0.8  # F1 from which a concept counts as found
SIZES = (1, 2, 5, 16)


class Options(Strict):
    """How much is asked."""

    units: int = Field(default=256, ge=2, description="Living units, drawn from all sites, that systems compete with.")
    strongest: int = Field(default=16, ge=1, description="A unit fires where it is among so many of its site (purity).")
    least: int = Field(default=30, ge=1, description="Tokens of either split on which a concept must hold to be asked.")
    documents: int = Field(default=3, ge=1, description="Documents of either split in which it must hold.")
    seed: int = Field(default=0, ge=0, description="Draws the units, the random directions and the permutation.")


@dataclass(frozen=True)
class Side:
    """Units of one system, or of its control, on both splits, and how each tells each concept. living: those active on
    dev; drawn: equally many in every system."""

    dev: Activity
    eval: Activity
    detection: Detection
    living: Integers
    drawn: Integers


def measure(evaluation: Evaluation, options: Options) -> list[Measurement]:
    """All over concepts that hold on enough tokens of both splits, and over `units` units; F1 on eval.

    - coverage: mean over concepts of the F1 of the best unit (the mean over all draws of `units` living units);
      coverage_random: of as many random directions of the same sites that fire as often; coverage_permuted: of the
      units where every sequence has the labels of another; coverage_<kind>: over the concepts of a kind;
      coverage_layer_<n>: of half as many units of one layer; coverage_all, coverage_all_random,
      coverage_all_above_random: of all living units, and of as many directions as there are units. Drawing punishes a
      wide dictionary whose every concept has one latent, since few of them are drawn; taking all rewards width, which
      tries more often. A difference that both show is one;
    - found: share of concepts with F1 of 0.8 or more; reconstruction: F1 of "any sure unit" (dev precision 0.95);
    - probe_f1, probe_auroc: the full linear probe on the best site; coverage_share: coverage over probe_f1;
      bag_auroc: a bag of tokens; probe_<k>: AUROC of logistic probes on k units;
    - pair_gap: F1 of the best two units combined less that of the best alone; pair_gap_floor: the same with a random
      second; pair_gap_above_floor; pair_gap_above_floor_<kind>;
    - conjunction_own, conjunction_parts: F1 for planted conjunctions of the best unit of their own, and of the best
      units of their two parts both firing: has bird a unit, or only dog and cat?
    - pure: share of the units that fire often enough on both splits whose best concept on dev has precision 0.8 or more
      on eval; pure_random, pure_permuted; needed: concepts whose union tells best where a drawn unit fires; explained:
      F1 of that union (both on dev).

    What the pair gap does not say yet: sparse units gain by OR without any conjunction, units that never fall silent
    gain nothing by AND NOT, of many units a pair is rarely drawn, and who knows nothing has no gap. So it has no better
    or worse, and no verdict.

    Intervals resample documents for what is scored by F1, units for purity, concepts for AUROC.
    """
    asking = _asked(evaluation, options)
    dev_read, read = sites.read(evaluation, dev=True), sites.read(evaluation, dev=False)
    if not asking.concepts:
        reason = f"no concept holds on {options.least} tokens of dev and of eval"
        return not_applicable([f"concepts/{name}" for name in ("coverage", "pair_gap", "pure")], VERSION, reason)
    codes = activity(sites.codes_of(dev_read)), activity(sites.codes_of(read))
    chance = sites.random_codes(dev_read, read, options.seed)
    directions = activity([one.codes for one in chance.dev]), activity([one.codes for one in chance.eval])
    drawn = min(options.units, *(int((one[0].firings() > 0).sum()) for one in (codes, directions)))
    own, random = (_side(*one, asking, drawn, options.seed) for one in (codes, directions))
    if drawn < 2:
        return not_applicable([f"concepts/{name}" for name in ("coverage", "pair_gap", "pure")], VERSION,
                              "fewer than two units fire on dev")  # fmt: skip
    report = _Report(evaluation, asking, own, options)
    found = _coverage(report, random)
    found += _by_layer(report, dev_read)
    found += _pairs(report)
    found += _purity(report, dev_read, read, chance)
    found += _probes(report, dev_read, read, found[0].value)
    saw = (
        f"{len(asking.concepts)} concepts ({asking.left_out} too rare) on {asking.eval.n_tokens:,} tokens, chosen on "
        f"{asking.dev.n_tokens:,}; {len(own.drawn)} of {len(own.living):,} living units"
    )
    return [replace(one, saw=saw) for one in found]


@dataclass(frozen=True)
class _Report:
    """What every part of the metric needs, and how it states a mean over concepts."""

    evaluation: Evaluation
    asking: Asked
    own: Side
    options: Options

    def mean(
        self, name: str, scores: Scores, direction: Direction = "higher", over: Integers | None = None
    ) -> Measurement:
        """The mean over the concepts `over` (default: all), with documents resampled."""
        places = np.arange(len(self.asking.concepts)) if over is None else over
        return Measurement(
            f"concepts/{name}",
            float(scores.value[places].mean()),
            "F1",
            direction,
            VERSION,
            scores.replicates[:, places].mean(1),
            "documents",
        )

    def by_kind(self, name: str, scores: Scores, direction: Direction = "higher") -> list[Measurement]:
        kinds = self.asking.kinds()
        return [self.mean(f"{name}_{kind}", scores, direction, kinds[kind]) for kind in kinds]

    def best(self, side: Side, held: Held) -> Scores:
        """Of the best unit: the mean over all draws of equally many, with the spread of the draw that was made."""
        made = of_units(side.detection, side.eval, best_units(side.detection, side.drawn))
        scores = score_predictions(made, held, self.evaluation.resamples)
        return scores.moved_to(expected_best(side.detection, side.living, len(side.drawn)))

    def best_of_all(self, side: Side) -> Scores:
        """Of the best of all living units."""
        made = of_units(side.detection, side.eval, best_units(side.detection, side.living))
        return score_predictions(made, self.asking.eval, self.evaluation.resamples)


def _asked(evaluation: Evaluation, options: Options) -> Asked:
    assert evaluation.load_labels is not None, "registered as reading labels"
    dev_documents = np.concatenate([b.document.reshape(-1).cpu().numpy() for b in _batches(evaluation, dev=True)])
    return asked(
        evaluation.load_labels("dev"),
        evaluation.load_labels("eval"),
        numbered(dev_documents),
        numbered(evaluation.document_of_codes().numpy()),
        options.least,
        options.documents,
    )


def _batches(evaluation: Evaluation, *, dev: bool) -> Iterator[Batch]:
    return evaluation.batches(evaluation.codes_sequences, dev=dev)


def _side(dev: Activity, evaluation: Activity, asking: Asked, drawn: int, seed: int) -> Side:
    living = np.flatnonzero(dev.firings() > 0)
    chosen = np.sort(np.random.default_rng([seed, 6]).choice(living, drawn, replace=False))
    return Side(dev, evaluation, detect(dev, asking.dev, evaluation, asking.eval), living, chosen)


def _less(a: Scores, b: Scores) -> Scores:
    return Scores(a.value - b.value, a.replicates - b.replicates)


def _coverage(report: _Report, random: Side) -> list[Measurement]:
    asking, own = report.asking, report.own
    best, chance = report.best(own, asking.eval), report.best(random, asking.eval)
    permuted = asking.permuted(report.evaluation.split.length, report.options.seed)
    elsewhere = _side(own.dev, own.eval, permuted, len(own.drawn), report.options.seed)
    resamples = report.evaluation.resamples
    sure = score_predictions(of_sure_units(own.detection, own.eval, own.drawn), asking.eval, resamples)
    sure_random = score_predictions(of_sure_units(random.detection, random.eval, random.drawn), asking.eval, resamples)
    whole, whole_chance = report.best_of_all(own), report.best_of_all(random)
    made = of_units(own.detection, own.eval, best_units(own.detection, own.drawn))
    one_draw = score_predictions(made, asking.eval, resamples)
    reached = Scores((one_draw.value >= FOUND).astype(float), (one_draw.replicates >= FOUND).astype(float))
    found = reached.moved_to(expected_best(own.detection, own.living, len(own.drawn), FOUND))
    return [
        report.mean("coverage", best),
        report.mean("coverage_random", chance, "none"),
        report.mean("coverage_above_random", _less(best, chance)),
        report.mean("coverage_permuted", report.best(elsewhere, permuted.eval), "none"),
        *report.by_kind("coverage", best),
        report.mean("coverage_all", whole),
        report.mean("coverage_all_random", whole_chance, "none"),
        report.mean("coverage_all_above_random", _less(whole, whole_chance)),
        replace(report.mean("found", found), unit="share of concepts"),
        report.mean("reconstruction", sure),
        report.mean("reconstruction_random", sure_random, "none"),
        report.mean("reconstruction_above_random", _less(sure, sure_random)),
    ]


def _by_layer(report: _Report, dev_read: sites.Read) -> list[Measurement]:
    """Half as many units, of one layer alone."""
    own, bounds = report.own, sites.offsets(sites.codes_of(dev_read))
    found = []
    for site, first, last in zip(dev_read.encoded, bounds[:-1], bounds[1:], strict=True):
        here = own.living[(own.living >= first) & (own.living < last)]
        if len(here) == 0:
            continue
        value = expected_best(own.detection, here, min(report.options.units // 2, len(here)))
        found.append(Measurement(f"concepts/coverage_layer_{site.layer}", float(value.mean()), "F1", "higher", VERSION))
    return found


def _pairs(report: _Report) -> list[Measurement]:
    asking, own = report.asking, report.own
    scores: PairScores = pair_scores(
        own.detection, own.dev, asking.dev, own.eval, asking.eval, own.drawn, report.evaluation.resamples,
        report.options.seed,
    )  # fmt: skip
    gap, floor = _less(scores.pair, scores.single), _less(scores.floor, scores.single)
    above = _less(gap, floor)
    found = [
        report.mean("pair_gap", gap, "none"),
        report.mean("pair_gap_floor", floor, "none"),
        report.mean("pair_gap_above_floor", above, "none"),
        *report.by_kind("pair_gap_above_floor", above, "none"),
    ]
    return found + _conjunctions(report)


def _conjunctions(report: _Report) -> list[Measurement]:
    """For concepts that have parts: a unit of their own, or their parts' units together?"""
    asking, own = report.asking, report.own
    place_of = {concept.name: place for place, concept in enumerate(asking.concepts)}
    best = best_units(own.detection, own.drawn)
    alone = of_units(own.detection, own.eval, best)
    found = []
    for kind, places in asking.kinds().items():
        whole = [place for place in places if asking.concepts[place].parts]
        known = [place for place in whole if all(part in place_of for part in asking.concepts[place].parts)]
        if not known:
            continue
        together: list[NDArray[np.integer]] = [np.zeros(0, np.int64)] * len(asking.concepts)
        for place in known:
            first, second = (place_of[part] for part in asking.concepts[place].parts)
            together[place] = both(own.detection, own.eval, (int(best[first]), first), (int(best[second]), second))
        over = np.array(known)
        resamples = report.evaluation.resamples
        mine = score_predictions(alone, asking.eval, resamples)
        parts = score_predictions(together, asking.eval, resamples)
        found += [
            report.mean(f"{kind}_own", mine, "higher", over),
            report.mean(f"{kind}_parts", parts, "none", over),
            report.mean(f"{kind}_own_above_parts", _less(mine, parts), "higher", over),
        ]
    return found


def _purity(report: _Report, dev_read: sites.Read, read: sites.Read, chance: sites.RandomCodes) -> list[Measurement]:
    options, asking = report.options, report.asking

    def firing(sides: Iterable[Encoded]) -> Activity:
        return activity([encoded.codes.keep(encoded.strongest(options.strongest)) for encoded in sides])

    dev, evaluation = firing(dev_read.encoded.values()), firing(read.encoded.values())
    permuted = asking.permuted(report.evaluation.split.length, options.seed)
    shares: dict[str, tuple[Purity, Direction]] = {
        "pure": (purity(dev, asking.dev, evaluation, asking.eval), "higher"),
        "pure_permuted": (purity(dev, permuted.dev, evaluation, permuted.eval), "none"),
        "pure_random": (purity(firing(chance.dev), asking.dev, firing(chance.eval), asking.eval), "none"),
    }
    found = []
    for name, (of, direction) in shares.items():
        flags = of.pure()
        reps = proportion_bootstrap(flags, report.evaluation.resamples) if len(flags) else None
        share = float(flags.mean()) if len(flags) else 0.0
        found.append(Measurement(f"concepts/{name}", share, "share of units", direction, VERSION, reps, "units"))
    told = explained(dev, asking.dev, report.own.drawn)
    for name, values, unit in (("needed", told.needed, "concepts/unit"), ("explained", told.f1, "F1")):
        if len(values):
            found.append(Measurement(f"concepts/{name}", float(values.mean()), unit, "none", VERSION))
    return found


def _probes(report: _Report, dev_read: sites.Read, read: sites.Read, coverage: float) -> list[Measurement]:
    asking, own, options = report.asking, report.own, report.options
    each = [
        probes.linear_probe(dev_read.written[site], asking.dev, read.written[site], asking.eval)
        for site in dev_read.written
    ]
    best = np.stack([one.chosen for one in each]).argmax(0)  # the site, by dev
    concepts = np.arange(len(asking.concepts))
    f1 = np.stack([one.f1 for one in each])[best, concepts]
    area = np.stack([one.auroc for one in each])[best, concepts]
    ids_dev, ids = (
        np.concatenate([b.input_ids.reshape(-1).cpu().numpy() for b in _batches(report.evaluation, dev=dev)])
        for dev in (True, False)
    )
    bag = probes.bag_of_tokens(ids_dev, asking.dev, ids, asking.eval, report.evaluation.split.length)
    of_units_ = probes.sparse_probes(own.dev, asking.dev, own.eval, asking.eval, own.drawn, SIZES, options.seed)
    found = [
        Measurement("concepts/probe_f1", float(f1.mean()), "F1", "none", VERSION),
        Measurement("concepts/coverage_share", coverage / max(float(f1.mean()), 1e-9), "", "higher", VERSION),
        Measurement("concepts/probe_auroc", float(area.mean()), "AUROC", "none", VERSION),
        Measurement("concepts/bag_f1", float(bag.f1.mean()), "F1", "none", VERSION),
        Measurement("concepts/bag_auroc", float(bag.auroc.mean()), "AUROC", "none", VERSION),
    ]
    found += [
        Measurement(f"concepts/probe_f1_{kind}", float(f1[places].mean()), "F1", "none", VERSION)
        for kind, places in asking.kinds().items()
    ]
    return found + [
        Measurement(f"concepts/probe_{k}", float(np.nanmean(area)), "AUROC", "higher", VERSION)
        for k, area in of_units_.items()
    ]


register("concepts", measure, Options, VERSION, labels=True)
