"""Are units, or pools of them, about one domain or one concept, and does taking them away touch nothing else?

`information.py` says how much which unit fires says of the domain, `knockout.py` what is lost without a domain's units.
MONET (arXiv 2412.04139) assigns units by the same rule of twice the runner-up and takes them away; the correction by
shuffled documents, the controls and the knock-out of concepts are ours. No domain label is seen in training. [U]
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import Field

from harness.base.settings import Strict
from harness.metrics.concepts.detection import detect
from harness.metrics.concepts.tellers import activity_of, concepts_of, tellers
from harness.metrics.concepts.tokens import Wanted, numbered
from harness.metrics.joint.pairs import Fired, fired
from harness.metrics.metric import register
from harness.metrics.specialisation import information, knockout
from harness.metrics.specialisation.information import Counted
from harness.systems.evaluation import Evaluation
from harness.systems.system import Site
from harness.tables.measurement import Direction, Measurement, not_applicable
from harness.tables.statistics import resampled_sums, unit_bootstrap

VERSION = 1
SHUFFLES = 20
LEAST = 20  # firings from which a unit is assigned
TOLD = 0.5  # dev F1 from which a unit is one of a concept
MOST = 8  # units of a concept that are taken away


class Options(Strict):
    """How much is asked."""

    active: int = Field(default=16, ge=1, description="Strongest units of a token at a site that count as firing.")
    sequences: int = Field(default=128, ge=1, description="Evaluation sequences that knock-outs are read on.")
    concepts: int = Field(default=24, ge=0, description="Concepts that are knocked out, drawn evenly from their kinds.")
    seed: int = Field(default=0, ge=0, description="Draws shuffles, controls and concepts.")


def measure(evaluation: Evaluation, options: Options) -> list[Measurement]:
    """- information: bits that the number of a firing unit says of the domain, mean over sites, less that of shuffled
      documents (information_shuffled); pool_information: of its pool or expert, where units stand in groups;
    - specialised: share of the units with enough firings whose mass in one domain is twice the runner-up's;
      specialised_shuffled;
    - knockout_own, knockout_elsewhere: bits per token that the loss rises by in a domain whose units (by that rule, on
      dev) are taken away, and in the others; knockout_selectivity: their difference, knockout_random: the same of as
      many other units that fire as often. knockout_<domain>: of one domain;
    - erased_own, erased_elsewhere, erased_selectivity, erased_random: the same of concepts and their best units (dev F1
      of 0.5 or more), on tokens with and without the concept; erased: how many concepts had such units.

    Intervals resample documents; of specialised, units."""
    rng = np.random.default_rng([options.seed, 37])
    dev = fired(evaluation, evaluation.batches(evaluation.codes_sequences, dev=True), options.active)
    texts = _documents(evaluation)
    erased = _erased(evaluation, dev, options, rng)
    if len(np.unique(texts.domain)) < 2:
        names = [f"specialisation/{name}" for name in ("information", "specialised", "knockout_own")]
        return not_applicable(names, VERSION, "the text has one domain") + erased
    sites = {site: information.count([one], texts.document, texts.domain) for site, one in dev.items()}
    found = _information(evaluation, sites, rng)
    found += _knocked_out(evaluation, sites, options, rng)
    return found + erased


@dataclass(frozen=True)
class _Texts:
    """Of dev: the document of every token, numbered from 0, and the domain of every document."""

    document: np.ndarray
    domain: np.ndarray


def _documents(evaluation: Evaluation) -> _Texts:
    batches = list(evaluation.batches(evaluation.codes_sequences, dev=True))
    document, domain = (
        np.concatenate([getattr(batch, name).reshape(-1).cpu().numpy() for batch in batches])
        for name in ("document", "domain")
    )
    numbers = numbered(document)
    first = np.unique(numbers, return_index=True)[1]
    return _Texts(numbers, domain[first])


def _information(evaluation: Evaluation, sites: dict[Site, Counted], rng: np.random.Generator) -> list[Measurement]:
    own: list[float] = []
    chance: list[float] = []
    pools: list[float] = []
    flags: list[np.ndarray] = []
    shuffled_flags: list[float] = []
    for site, counted in sites.items():
        real, dealt = counted.by_domain(counted.domain), information.shuffles(counted, SHUFFLES, rng)
        chance.append(float(np.mean([information.information(one) for one in dealt])))
        own.append(information.information(real))
        often = np.asarray(counted.firings.sum(0)).reshape(-1) >= LEAST
        flags.append(information.specialised(real)[often] >= 0)
        shuffled_flags.append(float(np.mean([(information.specialised(one)[often] >= 0).mean() for one in dealt])))
        width = evaluation.system.group_width(site)
        if width is not None and width > 1:
            grouped = counted.grouped(width)
            real, dealt = grouped.by_domain(grouped.domain), information.shuffles(grouped, SHUFFLES, rng)
            by_chance = float(np.mean([information.information(one) for one in dealt]))
            pools.append(information.information(real) - by_chance)
    units = np.concatenate(flags)
    return [
        _plain("information", float(np.mean(own) - np.mean(chance)), "bit", "higher"),
        _plain("information_shuffled", float(np.mean(chance)), "bit"),
        *([_plain("pool_information", float(np.mean(pools)), "bit", "higher")] if pools else []),
        Measurement("specialisation/specialised", float(units.mean()), "share of units", "higher", VERSION,
                    unit_bootstrap(units.astype(float), None, evaluation.resamples), "units"),
        _plain("specialised_shuffled", float(np.mean(shuffled_flags)), "share of units"),
    ]  # fmt: skip


def _knocked_out(
    evaluation: Evaluation, sites: dict[Site, Counted], options: Options, rng: np.random.Generator
) -> list[Measurement]:
    domains = np.unique(next(iter(sites.values())).domain)
    runs: list[knockout.Units] = []
    for domain in domains:
        chosen: dict[Site, np.ndarray] = {}
        others: dict[Site, np.ndarray] = {}
        for site, counted in sites.items():
            counts = np.asarray(counted.firings.sum(0)).reshape(-1)
            assigned = information.specialised(counted.by_domain(counted.domain)) == domain
            chosen[site] = np.flatnonzero(assigned & (counts >= LEAST))
            others[site] = knockout.as_often(chosen[site], counts, rng)
        runs += [chosen, others]
    rises = knockout.rise(evaluation, runs, options.sequences).numpy().reshape(len(domains), 2, -1) / np.log(2)
    where = _targets(evaluation, options.sequences)
    inside = np.stack([where.domain == domain for domain in domains])
    found = _selectivity(evaluation, "knockout", rises, inside, where.document)
    names = _names(evaluation)
    for place, domain in enumerate(domains):
        for other, there in zip(domains, inside, strict=True):
            if there.any():
                name = f"without_{names[int(domain)]}_in_{names[int(other)]}"
                found.append(_plain(name, float(rises[place, 0][there].mean()), "bit/token"))
    return found


def _names(evaluation: Evaluation) -> dict[int, str]:
    """Of every domain, as its documents say; its number, where no document can be read."""
    found: dict[int, str] = {}
    for batch in evaluation.batches(evaluation.codes_sequences, dev=True):
        for row, domain in zip(batch.document.reshape(-1).tolist(), batch.domain.reshape(-1).tolist(), strict=True):
            if domain not in found:
                found[domain] = evaluation.document(row).domain if evaluation.document else str(domain)
    return found


def _erased(
    evaluation: Evaluation, dev: dict[Site, Fired], options: Options, rng: np.random.Generator
) -> list[Measurement]:
    names = [f"specialisation/{name}" for name in ("erased_own", "erased_elsewhere", "erased_selectivity")]
    asking = concepts_of(evaluation, Wanted(50, 3, options.concepts, options.seed))
    if not asking.concepts:
        return not_applicable(names, VERSION, "no concept holds often enough")
    counts = {site: np.bincount(one.unit, minlength=one.n_units) for site, one in dev.items()}
    runs: list[knockout.Units] = []
    erased: list[int] = []
    active = activity_of(dev)
    detection = detect(active, asking.dev, active, asking.dev)
    for concept, of in enumerate(tellers(detection, dev, TOLD, MOST)):
        if of:
            chosen = {site: np.array([one.unit for one in of if one.site == site], np.int64) for site in dev}
            runs += [chosen, {site: knockout.as_often(units, counts[site], rng) for site, units in chosen.items()}]
            erased.append(concept)
    if not erased:
        return not_applicable(names, VERSION, f"no unit tells one of {len(asking.concepts)} concepts with F1 {TOLD}")
    sequences = min(options.sequences, evaluation.codes_sequences)
    rises = knockout.rise(evaluation, runs, sequences).numpy().reshape(len(erased), 2, -1) / np.log(2)
    where = _targets(evaluation, sequences)
    holds = asking.eval.matrix().toarray().astype(bool)[where.source]  # on the token that predicts the target
    found = _selectivity(evaluation, "erased", rises, holds[:, erased].T, where.document)
    return [*found, _plain("erased", float(len(erased)), "concepts")]


@dataclass(frozen=True)
class _Targets:
    """Of every target `[targets]`: document (numbered from 0), domain, and the place of the token before it."""

    document: np.ndarray
    domain: np.ndarray
    source: np.ndarray


def _targets(evaluation: Evaluation, sequences: int) -> _Targets:
    batches = list(evaluation.batches(min(sequences, evaluation.sequences)))
    document, domain = (
        np.concatenate([getattr(batch, name)[:, 1:].reshape(-1).cpu().numpy() for batch in batches])
        for name in ("document", "domain")
    )
    length = evaluation.split.length
    source = np.arange(len(document) // (length - 1))[:, None] * length + np.arange(length - 1)
    return _Targets(numbered(document), domain, source.reshape(-1))


def _selectivity(
    evaluation: Evaluation, name: str, rises: np.ndarray, inside: np.ndarray, document: np.ndarray
) -> list[Measurement]:
    """rises `[things, own and random, targets]`, inside `[things, targets]`: where the thing is. Means over the things
    that the text has targets with and without: a domain that is in none of it counts neither as own nor as elsewhere.
    """
    n_documents = int(document.max()) + 1

    def sums(values: np.ndarray) -> np.ndarray:
        return np.bincount(document, values, minlength=n_documents)

    columns = []
    for rise, here in zip(rises, inside, strict=True):
        for mask in (here, ~here):
            columns += [sums(rise[0] * mask), sums(rise[1] * mask), sums(mask.astype(float))]
    matrix = np.stack(columns, 1)

    def figures(totals: np.ndarray) -> np.ndarray:
        parts = totals.reshape(len(totals), len(rises), 2, 3)  # things, in and out, (own, random, count)
        with np.errstate(invalid="ignore", divide="ignore"):
            means = parts[..., :2] / parts[..., 2:]
            both = (parts[..., 2:] > 0).all(2)  # else own and elsewhere would be means of different things
            own, elsewhere = (
                np.where(both, means[:, :, at], 0).sum(1) / both.sum(1) for at in (0, 1)
            )  # [n, own, random]
        apart = own - elsewhere
        return np.stack([own[:, 0], elsewhere[:, 0], apart[:, 0], apart[:, 1], apart[:, 0] - apart[:, 1]], 1)

    value, replicates = figures(matrix.sum(0, keepdims=True))[0], figures(resampled_sums(matrix, evaluation.resamples))
    names = ("own", "elsewhere", "selectivity", "random", "selectivity_above_random")
    directions: tuple[Direction, ...] = ("none", "none", "higher", "none", "higher")
    return [
        Measurement(f"specialisation/{name}_{part}", float(value[at]), "bit/token", direction, VERSION,
                    replicates[:, at], "documents")
        for at, (part, direction) in enumerate(zip(names, directions, strict=True))
    ]  # fmt: skip


def _plain(name: str, value: float, unit: str, direction: Direction = "none") -> Measurement:
    return Measurement(f"specialisation/{name}", value, unit, direction, VERSION)


register("specialisation", measure, Options, VERSION, labels=True)
