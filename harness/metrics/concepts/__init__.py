"""Does a unit mean one thing? Counted, on a corpus whose tokens say which concepts hold on them.

Everything is chosen on dev (which unit, which threshold, which pair, the probes) and scored on eval; only `needed` and
`explained` describe dev itself. Whatever is asked of units is asked of random directions that read the same and fire as
often. `activity.py` puts units in order, `detection.py` sweeps their thresholds, `predictions.py` scores what is said
of each concept, `coverage.py` takes the best unit, `pairs.py` the best two, `conjunctions.py` asks whether a planted
pair has a unit of its own, `purity.py` goes from units to concepts, `probes.py` and `bag.py` say what can be read there
at all, and what words alone say. Coverage and reconstruction come from board states (Karvonen et al., arXiv 2408.00113,
equations 1 and 2), there by thresholds at shares of a unit's maximum; here every threshold is tried. [U: the equal
numbers, the pair gap, conjunctions, purity, and all controls are ours]
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from harness.base.settings import Strict
from harness.corpus.stored import Batch
from harness.metrics.concepts import probes
from harness.metrics.concepts.activity import Activity, Integers, activity
from harness.metrics.concepts.bag import bag_of_tokens
from harness.metrics.concepts.conjunctions import conjunctions
from harness.metrics.concepts.coverage import by_layer, coverage
from harness.metrics.concepts.pairs import Pairs, pairs
from harness.metrics.concepts.predictions import Scores, score_predictions
from harness.metrics.concepts.purity import Purity, explained, purity
from harness.metrics.concepts.side import VERSION, Means, Side, living, plain, side
from harness.metrics.concepts.sites import Read, codes_of, random_codes, read
from harness.metrics.concepts.tokens import Asked, Wanted, asked, numbered
from harness.metrics.metric import register
from harness.systems.evaluation import Evaluation
from harness.systems.system import Encoded, System
from harness.tables.measurement import Direction, Measurement, not_applicable
from harness.tables.statistics import proportion_bootstrap
from kernels.codes import Codes

SIZES = (1, 2, 5, 16)
MAIN = ("coverage", "coverage_all", "pair_gap", "pure")


class Options(Strict):
    """How much is asked."""

    units: int = Field(default=256, ge=2, description="Living units, drawn from all sites, that systems compete with.")
    strongest: int = Field(default=16, ge=1, description="A unit fires where it is among so many of its site (purity).")
    least: int = Field(default=30, ge=1, description="Tokens of either split on which a concept must hold to be asked.")
    documents: int = Field(default=3, ge=1, description="Documents of either split in which it must hold.")
    concepts: int = Field(default=1000, ge=1, description="At most, drawn evenly from their kinds.")
    seed: int = Field(default=0, ge=0, description="Draws the units, the random directions and the permutation.")


@dataclass(frozen=True)
class _Texts:
    """What is asked about: permuted: the same where every sequence has the labels of another; kept_dev, kept: the
    tokens of either split that count; ids_dev, ids: of all tokens."""

    asking: Asked
    permuted: Asked
    kept_dev: Integers
    kept: Integers
    ids_dev: Integers
    ids: Integers
    length: int


def measure(evaluation: Evaluation, options: Options) -> list[Measurement]:
    """All over concepts that hold on enough tokens of both splits; F1 on eval. A unit lives if it fires on 10 tokens of
    dev. <figure>_random: the same of as many random directions; <figure>_above_random: the difference.

    - coverage: mean over concepts of the F1 of the best unit of `units` living ones (the mean over all draws);
      coverage_permuted: where every sequence has the labels of another; coverage_<kind>: over the concepts of a kind;
      coverage_layer_<n>: of half as many units of one layer. coverage_all: of the best of all living units. Drawing
      punishes a wide dictionary whose every concept has one latent, since few of them are drawn. Taking all rewards
      width, which tries more often; less random directions, which are as many, it too punishes units that are idle or
      say the same. A difference that all show is one;
    - found: share of concepts with F1 of 0.8 or more; reconstruction: F1 of "any sure unit" (dev precision 0.95 in
      several documents), of all living units;
    - pair_gap: F1 of the best AND or AND NOT of two living units, less that of the best alone; split_gap: of the best
      OR. Neither is better or worse by itself: who knows nothing has no gap, and neither has who needs no pair;
    - conjunction_own, conjunction_parts, conjunction_hidden (also mixture, additive): has a planted pair a unit of its
      own, or only its parts? own_above_additive: own over conjunctions less own over additive pairs, which have no
      meaning to have one for; own_above_additive_logits: of the logits as units;
    - pure: share of the units that fire often enough on both splits (pure_units: how many) whose best concept on dev
      has precision 0.8 or more on eval (a topic, of which any unit of its concepts is sure, has to be told whole);
      needed: concepts whose union tells best where a drawn unit fires; explained: F1 of that union (both on dev);
    - probe_f1, probe_auroc: the full linear probe on the best site; coverage_share: coverage over probe_f1; stream_f1:
      the probe on what the unembedding reads, stream_without_layers_f1: where all feed-forward layers are silent, so
      that attention alone tells it (all three also by kind); bag_f1, bag_auroc: words alone; probe_<k>: AUROC of
      logistic probes on k units.

    Intervals resample documents for what is scored by F1, units for purity, planted pairs for own_above_additive.
    """
    texts = _texts(evaluation, options)
    asking = texts.asking
    if not asking.concepts:
        reason = f"no concept holds on {options.least} tokens of dev and of eval"
        return not_applicable([f"concepts/{name}" for name in MAIN], VERSION, reason)
    dev_read = read(evaluation, texts.kept_dev, dev=True)
    eval_read = read(evaluation, texts.kept, dev=False)
    chance = random_codes(dev_read, eval_read, options.seed + _fingerprint(evaluation.system))
    codes = list(dev_read.encoded.values()), list(eval_read.encoded.values())
    (dev, ev), (dev_random, ev_random) = (tuple(activity(codes_of(part)) for part in each) for each in (codes, chance))
    drawn = min(options.units, len(living(dev)), len(living(dev_random)))
    if drawn < 2:
        return not_applicable([f"concepts/{name}" for name in MAIN], VERSION, "fewer than two units live on dev")
    own, random = (side(*each, asking, drawn, options.seed) for each in ((dev, ev), (dev_random, ev_random)))
    means = Means(asking, evaluation.resamples)
    found = coverage(means, own, random, texts.permuted, options.seed)
    found += by_layer(own, random, dev_read, options.units // 2)
    told = [pairs(of.detection, of.dev, asking.dev, of.eval, of.living) for of in (own, random)]
    found += _pairs(means, *told)
    logits = activity([_positive(dev_read.logits)]), activity([_positive(eval_read.logits)])
    found += conjunctions(means, own, random, logits, (told[0].found, told[1].found))
    found += _purity(texts, codes, chance, own, options, evaluation.resamples)
    found += _probes(means, texts, dev_read, eval_read, found[0])
    found += _sparse_probes(asking, own, random, options.seed)
    saw = (
        f"{len(asking.concepts)} concepts ({asking.left_out} rare or not drawn) on {asking.eval.n_tokens:,} tokens, "
        f"chosen on {asking.dev.n_tokens:,}; {len(own.drawn)} of {len(own.living):,} living units"
    )
    return [replace(one, saw=saw) for one in found]


def _texts(evaluation: Evaluation, options: Options) -> _Texts:
    assert evaluation.load_labels is not None, "registered as reading labels"
    labels = [evaluation.load_labels(split) for split in ("dev", "eval")]
    ids, documents, kept = [], [], []
    for found, dev in zip(labels, (True, False), strict=True):
        batches = list(_batches(evaluation, dev=dev))
        ids.append(np.concatenate([b.input_ids.reshape(-1).cpu().numpy() for b in batches]))
        documents.append(numbered(np.concatenate([b.document.reshape(-1).cpu().numpy() for b in batches])))
        text = np.concatenate([evaluation.counted(b.input_ids).reshape(-1).cpu().numpy() for b in batches])
        kept.append(np.flatnonzero(text & found.known))
    wanted = Wanted(options.least, options.documents, options.concepts, options.seed)
    everywhere = asked(labels[0], labels[1], documents[0], documents[1], wanted)
    everywhere = everywhere.telling(kept[0], kept[1], options.least)
    length = evaluation.split.length
    permuted = everywhere.permuted(length, options.seed)
    return _Texts(everywhere.only(*kept), permuted.only(*kept), kept[0], kept[1], ids[0], ids[1], length)


def _fingerprint(system: System) -> int:
    """A number that differs with the weights: seeds of a row then draw other directions, and their spread counts."""
    first = next(system.model.parameters()).detach().reshape(-1)[:64]
    return zlib.crc32(first.float().cpu().numpy().tobytes())


def _batches(evaluation: Evaluation, *, dev: bool) -> Iterator[Batch]:
    return evaluation.batches(evaluation.codes_sequences, dev=dev)


def _positive(logits: Tensor) -> Codes:
    """Logits above their mean, as units."""
    return Codes.from_dense(logits.clamp_min(0), torch.zeros(len(logits), 2, dtype=torch.long))


def _pairs(means: Means, own: Pairs, random: Pairs) -> list[Measurement]:
    def gaps(told: Pairs) -> tuple[Scores, Scores]:
        single, joint, split = (
            score_predictions(one, means.asking.eval, means.resamples) for one in (told.single, told.joint, told.split)
        )
        return joint.less(single), split.less(single)

    (joint, split), (joint_random, split_random) = gaps(own), gaps(random)
    return [
        *means.beside_random("pair_gap", joint, joint_random, "none"),
        *means.by_kind("pair_gap", joint, joint_random, "none"),
        *means.beside_random("split_gap", split, split_random, "none"),
    ]


def _purity(
    texts: _Texts, codes: Sequence[Sequence[Encoded]], chance: Sequence[Sequence[Encoded]], own: Side,
    options: Options, resamples: int,
) -> list[Measurement]:  # fmt: skip
    def firing(sides: Sequence[Encoded]) -> Activity:
        return activity([encoded.codes.keep(encoded.strongest(options.strongest)) for encoded in sides])

    asking, permuted = texts.asking, texts.permuted
    dev, evaluation = map(firing, codes)
    dev_random, random = map(firing, chance)
    shares: dict[str, tuple[Purity, Direction]] = {
        "pure": (purity(dev, asking.dev, evaluation, asking.eval), "higher"),
        "pure_permuted": (purity(dev, permuted.dev, evaluation, permuted.eval), "none"),
        "pure_random": (purity(dev_random, asking.dev, random, asking.eval), "none"),
    }
    found = []
    for name, (of, direction) in shares.items():
        flags = of.pure()
        reps = proportion_bootstrap(flags, resamples) if len(flags) else None
        share = float(flags.mean()) if len(flags) else 0.0
        found.append(Measurement(f"concepts/{name}", share, "share of units", direction, VERSION, reps, "units"))
    judged = shares["pure"][0].units
    found.append(plain("pure_units", float(len(judged)), "units"))
    told = explained(dev, asking.dev, own.drawn)
    if len(told.needed):
        found.append(plain("needed", float(told.needed.mean()), "concepts/unit"))
        found.append(plain("explained", float(told.f1.mean()), "F1"))
    return found


def _probes(means: Means, texts: _Texts, dev_read: Read, eval_read: Read, best_unit: Measurement) -> list[Measurement]:
    asking = means.asking

    def scores(of: probes.ProbeScores) -> Scores:
        return score_predictions(of.said, asking.eval, means.resamples)

    def stated(name: str, of: Scores) -> list[Measurement]:
        kinds = asking.kinds().items()
        return [means.of(name, of, "none"), *(means.of(f"{name}_{kind}", of, "none", at) for kind, at in kinds)]

    on_sites = probes.better([
        probes.linear_probe(dev_read.written[site], asking.dev, eval_read.written[site], asking.eval)
        for site in dev_read.written
    ])  # fmt: skip
    stream, without_layers = (
        probes.linear_probe(dev, asking.dev, ev, asking.eval)
        for dev, ev in (
            (dev_read.stream, eval_read.stream), (dev_read.without_layers, eval_read.without_layers),
        )
    )  # fmt: skip
    bag = bag_of_tokens(texts.ids_dev, asking.dev, texts.ids, asking.eval, texts.length, texts.kept_dev, texts.kept)
    full = scores(on_sites)
    probe = means.of("probe_f1", full, "none")
    assert probe.replicates is not None
    assert best_unit.replicates is not None
    share = Measurement(
        "concepts/coverage_share", best_unit.value / max(probe.value, 1e-9), "", "higher", VERSION,
        best_unit.replicates / np.maximum(probe.replicates, 1e-9), "documents",
    )  # fmt: skip
    return [
        probe,
        *stated("probe_f1", full)[1:],
        share,
        plain("probe_auroc", float(np.nanmean(on_sites.auroc)), "AUROC"),
        *stated("stream_f1", scores(stream)),
        *stated("stream_without_layers_f1", scores(without_layers)),
        means.of("bag_f1", scores(bag), "none"),
        plain("bag_auroc", float(np.nanmean(bag.auroc)), "AUROC"),
    ]


def _sparse_probes(asking: Asked, own: Side, random: Side, seed: int) -> list[Measurement]:
    found = []
    for of, name in ((own, ""), (random, "_random")):
        areas = probes.sparse_probes(of.dev, asking.dev, of.eval, asking.eval, of.drawn, SIZES, seed)
        direction: Direction = "none" if name else "higher"
        found += [plain(f"probe_{k}{name}", float(np.nanmean(area)), "AUROC", direction) for k, area in areas.items()]
    return found


register("concepts", measure, Options, VERSION, labels=True)
