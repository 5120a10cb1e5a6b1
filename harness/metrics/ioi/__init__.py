"""Indirect object identification through units: how many carry who the answer is?

A sentence and its twin (prompts.py); units are put from the one into the other in order of what they do to first order
on other sentences (patching.py). Cunningham et al. (arXiv 2309.08600, section 4) patch features of one layer in order
found by an automated search, and read the divergence; here units of all sites compete, in order of attribution, and a
random order stands beside. [U: order, all sites]
"""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from harness.base.settings import Strict
from harness.metrics.ioi.patching import Native, attribution, native, patched
from harness.metrics.ioi.prompts import LEAST, Prompts, names_of, prompts
from harness.metrics.metric import register
from harness.systems.evaluation import Evaluation
from harness.systems.system import Site
from harness.tables.measurement import Direction, Measurement, not_applicable
from harness.tables.statistics import resampled_sums

VERSION = 1
ABLE = 0.75  # share of sentences in which the subject prefers the answer, from which it can do the task
COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
MAIN = ("units_half", "recovered_all")


class Options(Strict):
    """How much is asked."""

    sentences: int = Field(default=12, ge=2, description="Of each of five templates: to order by, and as many to read.")
    seed: int = Field(default=0, ge=0, description="Draws names, places and the random order.")


def measure(evaluation: Evaluation, options: Options) -> list[Measurement]:
    """- accuracy: share of the sentences after which the answer is likelier than the other name; difference: of their
      logits, natively;
    - recovered_<n>: share of the difference between sentence and twin that is back with n units patched, of all sites
      and at every position; recovered_random_<n>: n units that differ between the two, drawn; divergence_<n>: nats from
      what the sentence says; recovered_all, divergence_all: all units;
    - units_half: how many units bring half of it back, log-linear between counts.

    Intervals resample sentences."""
    tokenizer = evaluation.tokenizer
    wanted = [f"ioi/{name}" for name in MAIN]
    names = names_of(tokenizer) if tokenizer is not None else []
    if tokenizer is None or len(names) < LEAST:
        reason = f"{len(names)} first names are one token in this tokenizer, {LEAST} needed"
        return not_applicable(wanted, VERSION, reason)
    rng = np.random.default_rng([options.seed, 41])
    begin = tokenizer.get_vocab()[str(tokenizer.eos_token)]
    learnt, read = (prompts(tokenizer, begin, options.sentences, rng, names) for _ in range(2))
    system = evaluation.system
    before = [native(system, of) for of in read]
    able = torch.cat([one.difference > 0 for one in before]).float()
    found = [_of(evaluation, "accuracy", "share", able), _of(evaluation, "difference", "logit", _whole(before))]
    if float(able.mean()) < ABLE:
        reason = f"the subject cannot do the task: it prefers the right name in {float(able.mean()):.0%} of sentences"
        return found + not_applicable(wanted, VERSION, reason)
    score: dict[Site, Tensor] = {}
    for of in learnt:
        for site, each in attribution(system, of, native(system, of)).items():
            score[site] = score.get(site, torch.zeros_like(each)) + each
    generator = torch.Generator().manual_seed(options.seed)
    chance = {
        site: torch.rand(len(each), generator=generator).to(each.device) * (each != 0) for site, each in score.items()
    }
    return found + _curves(evaluation, read, before, score, chance)


def _curves(
    evaluation: Evaluation,
    read: list[Prompts],
    before: list[Native],
    score: dict[Site, Tensor],
    chance: dict[Site, Tensor],
) -> list[Measurement]:
    total = sum(len(each) for each in score.values())
    counts = [count for count in COUNTS if count < total]
    twin = torch.cat([one.difference_twin for one in before])
    apart = _whole(before) - twin
    found, shares = [], []
    for name, order, sizes in (("", score, [*counts, total]), ("random_", chance, counts)):
        for size in sizes:
            chosen = _largest(order, size)
            parts = [patched(evaluation.system, of, one, chosen) for of, one in zip(read, before, strict=True)]
            moved, divergence = (torch.cat(column) for column in zip(*parts, strict=True))
            label = "all" if size == total else f"{size}"
            direction: Direction = "none" if name else "higher"
            one = _ratio(evaluation, f"recovered_{name}{label}", moved - twin, apart, direction)
            found.append(one)
            if not name:
                found.append(_of(evaluation, f"divergence_{label}", "nat", divergence, "lower"))
                assert one.replicates is not None
                shares.append(np.concatenate([[one.value], one.replicates]))
    needed = np.array([_half(np.array([*counts, total], float), each) for each in np.stack(shares, 1)])
    if not np.isfinite(needed[0]):
        reason = "all units together bring less than half of it back"
        return [*found, *not_applicable(["ioi/units_half"], VERSION, reason)]
    return [*found, Measurement("ioi/units_half", float(needed[0]), "units", "lower", VERSION, needed[1:], "examples")]


def _largest(order: dict[Site, Tensor], size: int) -> dict[Site, Tensor]:
    """The `size` units of largest order over all sites, as masks."""
    every = torch.cat(list(order.values()))
    kept = torch.zeros(len(every), dtype=torch.bool, device=every.device)
    kept[every.topk(min(size, len(every))).indices] = True
    return dict(zip(order, kept.split([len(each) for each in order.values()]), strict=True))


def _half(counts: np.ndarray, shares: np.ndarray) -> float:
    """From how many units on half is back and stays back; NaN where it never is, 1 where one unit does it."""
    below = np.flatnonzero(~(shares >= 0.5))
    if not len(below):
        return 1.0
    last = int(below[-1])
    if last + 1 == len(counts):
        return float("nan")
    part = (0.5 - shares[last]) / (shares[last + 1] - shares[last])
    return float(counts[last] * (counts[last + 1] / counts[last]) ** part)


def _whole(before: list[Native]) -> Tensor:
    return torch.cat([one.difference for one in before])


def _of(evaluation: Evaluation, name: str, unit: str, values: Tensor, direction: Direction = "none") -> Measurement:
    return _ratio(evaluation, name, values, torch.ones_like(values), direction, unit)


def _ratio(
    evaluation: Evaluation, name: str, part: Tensor, whole: Tensor, direction: Direction, unit: str = "share"
) -> Measurement:
    columns = torch.stack([part, whole], 1).double().cpu().numpy()
    sums = resampled_sums(columns, evaluation.resamples)
    value = columns.sum(0)
    saw = f"{len(columns)} sentences"
    return Measurement(
        f"ioi/{name}",
        float(value[0] / value[1]),
        unit,
        direction,
        VERSION,
        sums[:, 0] / sums[:, 1],
        "examples",
        saw=saw,
    )


register("ioi", measure, Options, VERSION)
