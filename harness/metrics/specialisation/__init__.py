"""Are units, or pools of them, about one domain or one concept, and does taking them away touch nothing else?

`information.py` says how much which unit fires says of the domain, `domains.py` what is lost without a domain's units,
`erasing.py` without a concept's. MONET (arXiv 2412.04139) assigns units by the same rule of twice the runner-up and
takes them away; everything held out, the controls and the knock-out of concepts are ours. No domain label is seen in
training. [U]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from harness.base.settings import Strict
from harness.metrics.concepts.sites import random_codes, read
from harness.metrics.concepts.tokens import Wanted, numbered
from harness.metrics.joint.pairs import Fired, fired, strongest
from harness.metrics.metric import register
from harness.metrics.specialisation import information
from harness.metrics.specialisation.domains import DOCUMENTS, LEAST, VERSION, knocked_out
from harness.metrics.specialisation.erasing import erased
from harness.metrics.specialisation.information import Counted, count, counted
from harness.systems.evaluation import Evaluation
from harness.systems.system import Site
from harness.tables.measurement import Direction, Measurement, not_applicable
from harness.tables.statistics import resampled_sums

SHUFFLES = 20
GROUPS = 16  # of a site, up to which every one is told by itself
NAMES = ("information_above_random", "specialised_above_shuffled", "knockout_selectivity_above_random")


class Options(Strict):
    """How much is asked."""

    active: int = Field(default=16, ge=1, description="Strongest units of a token at a site that count as firing.")
    sequences: int = Field(default=128, ge=1, description="Evaluation sequences that knock-outs are read on.")
    concepts: int = Field(default=24, ge=0, description="Concepts that are knocked out, drawn evenly from their kinds.")
    documents: int = Field(default=6, ge=2, description="Documents of either split that a domain must have to count.")
    seed: int = Field(default=0, ge=0, description="Draws shuffles, controls and concepts.")


@dataclass(frozen=True)
class Split:
    """Of one split: what fires, the document of every token (numbered from 0), the domain of every document, the ids of
    the tokens, and which tokens are text."""

    fired: Mapping[Site, Fired]
    document: np.ndarray
    domain: np.ndarray
    ids: np.ndarray
    text: np.ndarray


def measure(evaluation: Evaluation, options: Options) -> list[Measurement]:
    """- information: bits that the number of a firing unit says of the domain, learnt on dev and told on eval, mean
      over sites; information_random: of as many random directions as active; information_tokens: of the token itself;
      information_above_random; pool_information: of the pool or expert, where units stand in groups;
    - specialised: share of the units that fire often enough whose mass on dev is in one domain twice the runner-up's,
      and which have most of it there on eval too; specialised_above_shuffled: less the same where domains are dealt
      out anew to the documents of dev;
    - knockout_own, knockout_elsewhere: what is lost in a domain without its units (that rule, on dev, at most 32) and
      in the others, each a share of what is lost there with all units off; knockout_selectivity: own less elsewhere;
      knockout_selectivity_random: of other units that write as much; knockout_told: domains whose selectivity is
      above all draws of the control, of knockout_domains where units do anything; without_<domain>_in_<domain>: bits
      per byte;
    - erased_*: the same of concepts and their best units (erasing.py);
    - share_<layer>.<group>_in_<domain>: of the firings in a domain, where a site has few groups.

    Domains with fewer than `documents` documents in either split are left out. Intervals resample documents of eval;
    where there is none, what the figure varies by is not known."""
    rng = np.random.default_rng([options.seed, 37])
    dev, held_out = (_split(evaluation, options.active, dev=of_dev) for of_dev in (True, False))
    wanted = Wanted(50, 3, options.concepts, options.seed)
    gone = erased(evaluation, dev.fired, options.sequences, wanted, rng)
    names = _names(evaluation, dev, held_out, options.documents)
    if len(names) < 2:
        reason = f"fewer than two domains have {options.documents} documents on dev and on eval"
        return not_applicable([f"specialisation/{name}" for name in NAMES], VERSION, reason) + gone
    n_domains = max(names) + 1

    def of(split: Split, site: Site) -> Counted:
        one = count(split.fired[site], split.document, split.domain, n_domains)
        return one.of(np.flatnonzero(np.isin(split.domain, list(names))))

    on_dev, on_eval = ({site: of(split, site) for site in split.fired} for split in (dev, held_out))
    return [
        *_information(evaluation, (dev, held_out), (on_dev, on_eval), rng),
        *_specialised(on_dev, on_eval, rng),
        *_shares(evaluation, on_eval, names),
        *knocked_out(evaluation, dev.fired, on_dev, options.sequences, names, rng),
        *gone,
    ]


def _split(evaluation: Evaluation, active: int, *, dev: bool) -> Split:
    batches = list(evaluation.batches(evaluation.codes_sequences, dev=dev))
    columns = {
        name: np.concatenate([getattr(batch, name).reshape(-1).cpu().numpy() for batch in batches])
        for name in ("document", "domain", "input_ids")
    }
    text = np.concatenate([evaluation.counted(batch.input_ids).reshape(-1).cpu().numpy() for batch in batches])
    document = numbered(columns["document"])
    domain = columns["domain"][np.unique(document, return_index=True)[1]]
    return Split(fired(evaluation, batches, active), document, domain, columns["input_ids"], text)


def _names(evaluation: Evaluation, dev: Split, held_out: Split, least: int) -> dict[int, str]:
    """Of every domain that has `least` documents in either split, as its documents say; its number, where no document
    can be read."""
    n = max(dev.domain.max(), held_out.domain.max()) + 1
    documents = np.minimum(*(np.bincount(split.domain, minlength=n) for split in (dev, held_out)))
    there = np.flatnonzero(documents >= least).tolist()
    if evaluation.document is None:
        return {domain: str(domain) for domain in there}
    rows: dict[int, int] = {}
    for batch in evaluation.batches(evaluation.codes_sequences, dev=True):
        for row, domain in zip(batch.document.reshape(-1).tolist(), batch.domain.reshape(-1).tolist(), strict=True):
            rows.setdefault(domain, row)
    return {domain: evaluation.document(rows[domain]).domain for domain in there}


def _information(
    evaluation: Evaluation,
    splits: tuple[Split, Split],
    sites: tuple[Mapping[Site, Counted], Mapping[Site, Counted]],
    rng: np.random.Generator,
) -> list[Measurement]:
    dev, held_out = sites
    some = next(iter(dev.values()))
    kept = [np.flatnonzero(np.isin(split.domain, some.domain)) for split in splits]

    def like(row: list[np.ndarray], unit: list[np.ndarray], n_units: int) -> tuple[Counted, Counted]:
        a, b = (
            counted(row[i], unit[i], n_units, splits[i].document, splits[i].domain, some.n_domains).of(kept[i])
            for i in (0, 1)
        )
        return a, b

    tokens = [split.document[split.text] for split in splits], [split.ids[split.text] for split in splits]
    vocabulary = 1 + max(int(split.ids.max()) for split in splits)
    random = _random(evaluation, splits, int(rng.integers(1 << 30)))
    columns = {
        "information": [information.information(dev[site], held_out[site], rng) for site in dev],
        "information_random": [
            information.information(*like(*of), rng) for of in random
        ],
        "information_tokens": [information.information(*like(*tokens, vocabulary), rng)],
    }  # fmt: skip
    grouped = {site: width for site in dev if (width := evaluation.system.group_width(site)) is not None and width > 1}
    if grouped:
        columns["pool_information"] = [
            information.information(dev[site].grouped(width), held_out[site].grouped(width), rng)
            for site, width in grouped.items()
        ]
    found = {name: _mean_bits(parts, evaluation.resamples) for name, parts in columns.items()}
    above = tuple(own - other for own, other in zip(found["information"], found["information_random"], strict=True))
    found["information_above_random"] = above  # pyright: ignore[reportArgumentType]
    return [
        Measurement(f"specialisation/{name}", float(value), "bit",
                    "higher" if name == "information_above_random" else "none", VERSION, replicates, "documents")
        for name, (value, replicates) in found.items()
    ]  # fmt: skip


def _mean_bits(parts: list[np.ndarray], resamples: int) -> tuple[float, np.ndarray]:
    """The mean over sites of a ratio of sums, and of every resample of documents."""
    columns = np.concatenate(parts, 1)

    def of(sums: np.ndarray) -> np.ndarray:
        ratios = sums.reshape(len(sums), len(parts), 2)
        return (ratios[..., 0] / np.maximum(ratios[..., 1], 1e-300)).mean(1)

    return float(of(columns.sum(0, keepdims=True))[0]), of(resampled_sums(columns, resamples))


def _random(
    evaluation: Evaluation, splits: tuple[Split, Split], seed: int
) -> list[tuple[list[np.ndarray], list[np.ndarray], int]]:
    """Of every site, of random directions that are as active as its units: the document of every firing and the
    direction, on dev and on eval, and how many there are."""
    active = int(max(1, *(np.bincount(one.token).max(initial=1) for one in splits[0].fired.values())))
    tokens = [np.flatnonzero(split.text) for split in splits]
    on_dev, on_eval = read(evaluation, tokens[0], dev=True), read(evaluation, tokens[1], dev=False)
    chance = random_codes(on_dev, on_eval, seed)
    found = []
    for dev, held_out in zip(*chance, strict=True):
        entries = [strongest(encoded, active) for encoded in (dev, held_out)]
        rows = [split.document[at[entry[0]]] for split, at, entry in zip(splits, tokens, entries, strict=True)]
        found.append((rows, [entry[1] for entry in entries], dev.codes.n_units))
    return found


def _specialised(
    dev: Mapping[Site, Counted], held_out: Mapping[Site, Counted], rng: np.random.Generator
) -> list[Measurement]:
    def share(domains: Callable[[Counted], np.ndarray]) -> float:
        flags = []
        for site, one in dev.items():
            told = information.specialised(one.by_domain(domains(one)))
            flags.append(information.stays(told, held_out[site])[one.often(LEAST, DOCUMENTS)])
        every = np.concatenate(flags)
        return float(every.mean()) if len(every) else float("nan")

    own = share(lambda one: one.domain)
    shuffled = [share(lambda one: information.dealt(one.domain, one.tokens, rng)) for _ in range(SHUFFLES)]
    if np.isnan(own):
        return not_applicable(["specialisation/specialised_above_shuffled"], VERSION, "no unit fires often enough")
    return [
        _plain("specialised", own, "share of units"),
        _plain("specialised_shuffled", float(np.mean(shuffled)), "share of units"),
        _plain("specialised_above_shuffled", own - float(np.mean(shuffled)), "share of units", "higher"),
    ]


def _shares(evaluation: Evaluation, held_out: Mapping[Site, Counted], names: Mapping[int, str]) -> list[Measurement]:
    """Of the firings in a domain, those in each group of a site, where there are few."""
    found = []
    for site, one in held_out.items():
        width = evaluation.system.group_width(site)
        if width is None or not 1 < one.n_units // width <= GROUPS:
            continue
        rates = one.grouped(width).by_domain()
        shares = rates / np.maximum(rates.sum(1, keepdims=True), 1e-300)
        found += [
            _plain(f"share_{site.layer}.{group}_in_{name}", float(shares[domain, group]), "share of firings")
            for domain, name in names.items()
            for group in range(shares.shape[1])
        ]
    return found


def _plain(name: str, value: float, unit: str, direction: Direction = "none") -> Measurement:
    return Measurement(f"specialisation/{name}", value, unit, direction, VERSION)


register("specialisation", measure, Options, VERSION, labels=True)
