"""Does holding a unit high say more of what its concept says?

A concept speaks through the tokens that follow it more often than they follow anything else, counted on dev. The unit
that tells it best there (F1 of `TOLD` or more), held at its high value where the concept does not hold, should raise
their odds, and more than another unit of the site that fires about as often. [U: ours]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from harness.metrics.concepts.detection import detect
from harness.metrics.concepts.tellers import activity_of, tellers
from harness.metrics.concepts.tokens import Asked, Held
from harness.metrics.joint.pairs import Fired
from harness.metrics.specialisation.knockout import as_often
from harness.systems.clamping import clamped
from harness.systems.evaluation import Evaluation
from harness.systems.system import Site

SAID = 5  # tokens through which a concept speaks
SHRUNK = 10.0
TOLD = 0.5
HIGH = 0.95  # quantile of a unit's values on dev


@dataclass(frozen=True)
class Steered:
    """A unit to hold at `value`, the tokens `[SAID]` of its concept, and the tokens of eval on which it does not hold
    `[tokens]` bool."""

    site: Site
    unit: int
    value: float
    said: np.ndarray
    elsewhere: np.ndarray


@dataclass(frozen=True)
class Chosen:
    """Units of concepts, and for each another one of its site that fires about as often."""

    own: list[Steered]
    other: list[Steered]


def choose(
    evaluation: Evaluation, dev: Mapping[Site, Fired], asking: Asked, length: int, rng: np.random.Generator
) -> Chosen:
    ids = np.concatenate(
        [b.input_ids.reshape(-1).cpu().numpy() for b in evaluation.batches(evaluation.codes_sequences, dev=True)]
    )
    vocabulary = evaluation.system.model.config.vocab_size
    said = spoken(ids, asking.dev, vocabulary, length)
    holds = asking.eval.matrix().toarray().astype(bool)
    chosen = Chosen([], [])
    active = activity_of(dev)
    detection = detect(active, asking.dev, active, asking.dev)
    for concept, told in enumerate(tellers(detection, dev, TOLD, 1)):
        if not told:
            continue
        site, unit, sign = told[0].site, told[0].unit, told[0].sign
        counts = np.where(alike(dev[site], unit), 0, np.bincount(dev[site].unit, minlength=dev[site].n_units))
        near = as_often(np.array([unit]), counts, rng)
        if len(near):
            for into, number, of in ((chosen.own, unit, sign), (chosen.other, int(near[0]), 0)):
                values = dev[site].value[dev[site].unit == number]
                value = high(values[np.sign(values) == of] if of else values)
                into.append(Steered(site, number, value, said[concept], ~holds[:, concept]))
    return chosen


def alike(fired: Fired, unit: int) -> np.ndarray:
    """Other units that fire where `unit` does, with an F1 of `TOLD` or more: halves of one thing, no control.
    `[units]` bool"""
    counts = np.bincount(fired.unit, minlength=fired.n_units)
    here = np.zeros(fired.n_tokens, bool)
    here[fired.token[fired.unit == unit]] = True
    both = np.bincount(fired.unit[here[fired.token]], minlength=fired.n_units)
    found = 2 * both >= TOLD * (counts + counts[unit])
    found[unit] = False
    return found & (counts > 0)


def high(values: np.ndarray) -> float:
    """Of a unit's values the one whose size is their `HIGH` quantile."""
    return float(values[np.argsort(np.abs(values), kind="stable")[int(HIGH * (len(values) - 1))]])


def spoken(ids: np.ndarray, held: Held, vocabulary: int, length: int) -> np.ndarray:
    """The `SAID` tokens that follow a concept most above how often they follow anything. What a concept says is mixed
    with `SHRUNK` tokens of what is said everywhere, so that a token that was never seen is no find. `[concepts, SAID]`
    """
    follows = np.arange(len(ids)) % length != length - 1
    next_ids = np.append(ids[1:], 0)
    everywhere = np.bincount(next_ids[follows], minlength=vocabulary) + 1.0
    everywhere /= everywhere.sum()
    counts = np.zeros((held.n_concepts, vocabulary))
    token = np.repeat(np.arange(held.n_tokens), np.diff(held.indptr))
    kept = follows[token]
    np.add.at(counts, (held.concepts[kept], next_ids[token[kept]]), 1)
    of_concept = (counts + SHRUNK * everywhere) / (counts.sum(1, keepdims=True) + SHRUNK)
    odds = np.log(of_concept) - np.log(everywhere)
    return np.argsort(-odds, axis=1, kind="stable")[:, :SAID]


@torch.no_grad()
def log_odds(evaluation: Evaluation, units: list[Steered], sequences: int) -> np.ndarray:
    """Mean change of the log odds of what each unit's concept says, over tokens without the concept. `[units]`"""
    system, sums = evaluation.system, np.zeros((len(units), 2))
    start = 0
    for batch in evaluation.batches(sequences):
        n = batch.input_ids.numel()

        def said(input_ids: Tensor = batch.input_ids) -> Tensor:
            return system.model(input_ids, use_cache=False).logits.float().flatten(0, 1).softmax(-1)

        native = said()
        for place, one in enumerate(units):
            with system.running({one.site: clamped(one.unit, one.value)}):
                held = said()
            here = one.elsewhere[start : start + n]
            change = _odds(held, one.said) - _odds(native, one.said)
            sums[place] += change.cpu().numpy()[here].sum(), here.sum()
        start += n
    return sums[:, 0] / np.maximum(sums[:, 1], 1)


def _odds(p: Tensor, said: np.ndarray) -> Tensor:
    """Log odds of these tokens together. `[tokens]`"""
    share = p[:, torch.as_tensor(said, device=p.device)].sum(-1).double().clamp(1e-9, 1 - 1e-9)
    return torch.log(share) - torch.log1p(-share)
