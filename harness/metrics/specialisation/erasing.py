"""One concept taken away and the rest kept: the units that tell it are off, and what is lost is looked for twice.

In the loss, on tokens where the concept holds and elsewhere. And in what is known: a probe on the last stream, learnt
natively on dev, tells each concept on eval; how much worse does it tell this one, and the others? All rows are asked
for the same concepts, and one that no unit tells counts as one of which nothing is lost: a row that can erase one easy
concept does not win. [U: ours]
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from harness.metrics.concepts.detection import detect
from harness.metrics.concepts.probes import auroc, fit
from harness.metrics.concepts.tellers import activity_of, concepts_of, tellers
from harness.metrics.concepts.tokens import Asked, Wanted
from harness.metrics.joint.pairs import Fired
from harness.metrics.specialisation import knockout
from harness.metrics.specialisation.domains import VERSION, targets
from harness.systems.evaluation import Evaluation
from harness.systems.system import Site
from harness.tables.measurement import Measurement, not_applicable
from harness.tables.statistics import resampled_sums

TOLD = 0.5  # dev F1 from which a unit is one of a concept
MOST = 8  # units of a concept that are taken away
HEADLINE = ("erased_selectivity_above_random", "erased_known_above_random")


def erased(
    evaluation: Evaluation, dev: Mapping[Site, Fired], sequences: int, wanted: Wanted, rng: np.random.Generator
) -> list[Measurement]:
    sequences = min(sequences, evaluation.codes_sequences)
    asking = concepts_of(evaluation, wanted)
    if not asking.concepts:
        return not_applicable([f"specialisation/{name}" for name in HEADLINE], VERSION, "no concept holds often enough")
    told, runs = _chosen(dev, asking, rng)
    probe = fit(_stream(evaluation), asking.dev)
    ran = knockout.run(evaluation, runs, sequences, probe)
    where = targets(evaluation, sequences)
    holds = asking.eval.matrix().toarray().astype(bool)
    n = len(asking.concepts)
    rises = ran.rises.numpy().reshape(len(told), 2, len(where.document)) / np.log(2)
    measured = _lost(evaluation, rises, holds[where.source][:, told].T, where.document, n)
    assert ran.read is not None
    return [
        *measured,
        *_known(ran.read.numpy(), holds[: ran.read.shape[1]], told),
        Measurement("specialisation/erased", float(len(told)), f"of {n} concepts", "none", VERSION),
    ]


def _chosen(
    dev: Mapping[Site, Fired], asking: Asked, rng: np.random.Generator
) -> tuple[list[int], list[knockout.Units]]:
    """The places of the concepts that units tell, and of each its own units and the control: of every unit another that
    fires as often where the concept holds, and does not tell it."""
    active = activity_of(dev)
    detection = detect(active, asking.dev, active, asking.dev)
    within = asking.dev.matrix().tocsc()
    bounds = np.cumsum([0, *(one.n_units for one in dev.values())])
    told: list[int] = []
    runs: list[knockout.Units] = []
    for concept, of in enumerate(tellers(detection, dev, TOLD, MOST)):
        if not of:
            continue
        holds = np.zeros(asking.dev.n_tokens, bool)
        holds[within.indices[within.indptr[concept] : within.indptr[concept + 1]]] = True
        own = {site: np.sort(np.array([one.unit for one in of if one.site == site], np.int64)) for site in dev}
        other = {}
        for place, (site, one) in enumerate(dev.items()):
            inside = np.bincount(one.unit[holds[one.token]], minlength=one.n_units)
            f1 = detection.chosen[bounds[place] : bounds[place + 1], concept]
            other[site] = knockout.like(own[site], inside, rng, but=np.flatnonzero(f1 >= TOLD))
        told.append(concept)
        runs += [own, other]
    return told, runs


@torch.no_grad()
def _stream(evaluation: Evaluation) -> Tensor:
    """What the unembedding reads on dev. `[tokens, d_model]`"""
    found: list[Tensor] = []
    norm = evaluation.system.model.final_norm()
    handle = norm.register_forward_hook(lambda _m, _a, y: found.append(y.flatten(0, 1).float().cpu()))
    try:
        for batch in evaluation.batches(evaluation.codes_sequences, dev=True):
            evaluation.system.model(batch.input_ids, use_cache=False, logits_to_keep=1)
    finally:
        handle.remove()
    return torch.cat(found)


def _lost(
    evaluation: Evaluation, rises: np.ndarray, inside: np.ndarray, document: np.ndarray, n: int
) -> list[Measurement]:
    """rises `[told, own and control, targets]` in bits, inside `[told, targets]`: where the concept holds. Means over n
    concepts, of which those that nobody tells lose nothing."""
    n_documents = int(document.max()) + 1

    def sums(values: np.ndarray) -> np.ndarray:
        return np.bincount(document, values, minlength=n_documents)

    columns = [np.zeros(n_documents)]
    for rise, here in zip(rises, inside, strict=True):
        for mask in (here, ~here):
            columns += [sums(rise[0] * mask), sums(rise[1] * mask), sums(mask.astype(float))]
    matrix = np.stack(columns, 1)

    def figures(totals: np.ndarray) -> np.ndarray:
        parts = totals[:, 1:].reshape(len(totals), -1, 2, 3)  # concepts, in and out, (own, control, count)
        means = np.where(parts[..., 2:] > 0, parts[..., :2] / np.maximum(parts[..., 2:], 1e-300), 0)
        own, elsewhere = (means[:, :, side].sum(1) / n for side in (0, 1))  # [resamples, own and control]
        apart = own - elsewhere
        return np.stack([own[:, 0], elsewhere[:, 0], apart[:, 0], apart[:, 1], apart[:, 0] - apart[:, 1]], 1)

    value, replicates = figures(matrix.sum(0, keepdims=True))[0], figures(resampled_sums(matrix, evaluation.resamples))
    names = ("own", "elsewhere", "selectivity", "selectivity_random", "selectivity_above_random")
    return [
        Measurement(f"specialisation/erased_{name}", float(value[at]), "bit/token",
                    "higher" if name.endswith("above_random") else "none", VERSION, replicates[:, at], "documents")
        for at, name in enumerate(names)
    ]  # fmt: skip


def _known(read: np.ndarray, holds: np.ndarray, told: list[int]) -> list[Measurement]:
    """read `[1 + runs, tokens, concepts]`, natively first. How much AUROC the probe of a concept loses, and the mean
    over the others' probes; the difference, and less that of the control."""
    n = holds.shape[1]
    able = [concept for concept in range(n) if 0 < holds[:, concept].sum() < len(holds)]
    areas = np.full((len(read), n), np.nan)
    for concept in able:
        for run in range(len(read)):
            areas[run, concept] = auroc(read[run, :, concept], holds[:, concept])
    lost = areas[:1] - areas[1:]  # [runs, concepts]
    own = np.zeros((2, n))
    others = np.zeros((2, n))
    for place, concept in enumerate(told):
        for which in (0, 1):
            of = lost[2 * place + which]
            rest = np.delete(of, concept)
            own[which, concept] = of[concept] if np.isfinite(of[concept]) else 0.0
            others[which, concept] = np.nanmean(rest) if np.isfinite(rest).any() else 0.0
    apart = (own - others).mean(1)
    values = {
        "erased_known_own": own[0].mean(),
        "erased_known_others": others[0].mean(),
        "erased_known_random": apart[1],
        "erased_known_above_random": apart[0] - apart[1],
    }
    return [
        Measurement(f"specialisation/{name}", float(value), "AUROC",
                    "higher" if name.endswith("above_random") else "none", VERSION)
        for name, value in values.items()
    ]  # fmt: skip
