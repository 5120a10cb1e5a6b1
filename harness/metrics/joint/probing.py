"""What has to be known of pairs before they are tested: which strangers are like B, and what each unit says alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from harness.metrics.joint import excess, meaning, strangers
from harness.metrics.joint.pairs import Chosen, Fired, PairContexts
from harness.metrics.joint.passes import PairTable, Variants, by_sequence
from harness.systems.system import System

if TYPE_CHECKING:
    from harness.corpus import PackedSplit
    from harness.systems.system import Site

ALONE = 24  # contexts in which a unit is read alone: half say what its core is, half how far that moves


@dataclass(frozen=True)
class Probed:
    """The pairs with their strangers and cores. near `[pairs]`: whether the strangers are like B. alone `[pairs, 2]`:
    how far each unit's core moves by itself, in nats for a unit of strength; 0 where too few contexts show it alone."""

    pairs: PairTable
    near: np.ndarray
    alone: np.ndarray


def probe(
    system: System,
    split: PackedSplit,
    pairs: PairTable,
    contexts: PairContexts,
    chosen: list[Chosen],
    dev: Mapping[Site, Fired],
    test: Mapping[Site, Fired],
    rng: np.random.Generator,
) -> Probed:
    """`contexts`: in which both fire, as many of every pair."""
    drawn = np.concatenate([strangers.drawn(part, dev, test, rng) for part in chosen])  # [pairs, DRAWN]
    sign = _signs(drawn, pairs, dev)
    effect_b, cosine_b, effects, cosines = _tried(system, split, pairs, contexts, drawn, sign)
    places, near = strangers.matched(effect_b, cosine_b, effects, cosines)
    rows = np.arange(len(drawn))[:, None]
    pairs = replace(pairs, strangers=drawn[rows, places], sign=sign[rows, places])
    core = torch.zeros(len(drawn), 2, system.model.config.vocab_size, dtype=torch.bool)
    alone = np.zeros((len(drawn), 2))
    for side in (0, 1):
        apart, half = _apart(chosen, test, side, rng)
        if len(apart):
            core[:, side], alone[:, side] = _said_alone(system, split, pairs, apart, half, side)
    return Probed(replace(pairs, core=core), near, alone)


def _signs(drawn: np.ndarray, pairs: PairTable, dev: Mapping[Site, Fired]) -> np.ndarray:
    """Of the mean value of every drawn unit on dev. `[pairs, DRAWN]`"""
    mean = {site: np.bincount(fired.unit, fired.value.astype(np.float64), fired.n_units) for site, fired in dev.items()}
    sites = [pairs.strata[index].b for index in pairs.stratum]
    return np.stack([np.where(mean[site][row] < 0, -1.0, 1.0) for site, row in zip(sites, drawn, strict=True)])


def _tried(
    system: System, split: PackedSplit, pairs: PairTable, contexts: PairContexts, drawn: np.ndarray, sign: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """On the first contexts of every pair: what B says alone in bits, its angle to A as a cosine `[pairs]`, and the
    same of the drawn units in its place `[pairs, DRAWN]`, nan where there is none."""
    n_pairs, n_drawn = drawn.shape
    each = min(strangers.PROBED, len(contexts) // n_pairs)
    first = np.arange(len(contexts)).reshape(n_pairs, -1)[:, :each].reshape(-1)
    few = PairContexts(*(getattr(contexts, name)[first] for name in PairContexts.__dataclass_fields__))
    sums = np.zeros((n_pairs, 2, 1 + n_drawn))
    for prefix, chunk in by_sequence(system, split, few.token, 2 + n_drawn):
        variants = Variants(system, prefix, few, chunk, pairs, split.length)
        pair = few.pair[chunk]
        zero = torch.zeros_like(variants.value[0])
        states = {"00": (zero, zero), "01": (zero, variants.value[1])}
        units, signs = (torch.as_tensor(of[pair], device=system.device) for of in (drawn, sign))
        others = {str(place): variants.stranger(units[:, place], signs[:, place]) for place in range(n_drawn)}
        z = variants.run(states | dict.fromkeys(others, (zero, zero)), others=others)
        a = variants.written(0, variants.units_of[0], variants.value[0])
        written = [variants.written(1, variants.units_of[1], variants.value[1])]
        written += [variants.written(1, units.clamp_min(0), values) for units, values in others.values()]
        effects = [excess.effect(z[name], z["00"]) for name in ("01", *others)]
        cosines = [torch.cosine_similarity(a, b, dim=-1) for b in written]
        np.add.at(sums[:, 0], pair, torch.stack(effects, 1).cpu().numpy())
        np.add.at(sums[:, 1], pair, torch.stack(cosines, 1).cpu().numpy())
    sums /= each
    sums[:, :, 1:][np.repeat((drawn < 0)[:, None], 2, 1)] = np.nan
    return sums[:, 0, 0], sums[:, 1, 0], sums[:, 0, 1:], sums[:, 1, 1:]


def _apart(
    chosen: list[Chosen], test: Mapping[Site, Fired], side: int, rng: np.random.Generator
) -> tuple[PairContexts, np.ndarray]:
    """ALONE contexts of every pair in which the unit of `side` fires and the other does not (none, where there are
    fewer), and for each whether it is of the second half."""
    columns: list[list[np.ndarray]] = []
    half = []
    number = 0
    for part in chosen:
        fired = [test[part.stratum.a], test[part.stratum.b]]
        own, other = fired[side], fired[1 - side]
        order = np.argsort(own.unit, kind="stable")
        starts = np.searchsorted(own.unit[order], np.arange(own.n_units + 1))
        for units in part.units:
            entries = order[starts[units[side]] : starts[units[side] + 1]]
            entries = entries[~np.isin(own.token[entries], other.token[other.unit == units[1 - side]])]
            if len(entries) >= ALONE:
                at = rng.choice(entries, ALONE, replace=False)
                silent = np.zeros(ALONE, np.float32)
                values, strengths = [own.value[at], silent], [own.strength[at], silent]
                if side:
                    values, strengths = values[::-1], strengths[::-1]
                columns.append([np.full(ALONE, number), own.token[at], *values, *strengths])
                half.append(np.arange(ALONE) >= ALONE // 2)
            number += 1
    if not columns:
        return PairContexts(*(np.zeros(0) for _ in range(6))), np.zeros(0, bool)
    return PairContexts(*(np.concatenate(column) for column in zip(*columns, strict=True))), np.concatenate(half)


def _said_alone(
    system: System, split: PackedSplit, pairs: PairTable, apart: PairContexts, half: np.ndarray, side: int
) -> tuple[Tensor, np.ndarray]:
    """The core of each pair's unit of `side` `[pairs, vocabulary]`, from the first half of its contexts, and how far it
    moves by itself in the second, in nats for a unit of strength `[pairs]`."""
    n_pairs = len(pairs.units)
    rise = torch.zeros(n_pairs, system.model.config.vocab_size)

    def read(which: np.ndarray):
        part = PairContexts(*(getattr(apart, name)[which] for name in PairContexts.__dataclass_fields__))
        for prefix, chunk in by_sequence(system, split, part.token, 2):
            variants = Variants(system, prefix, part, chunk, pairs, split.length)
            zero = torch.zeros_like(variants.value[0])
            z = variants.run({"on": variants.value, "off": (zero, zero)})
            yield torch.as_tensor(part.pair[chunk]), z["on"].cpu(), z["off"].cpu(), variants.strength[side].cpu()

    for pair, on, off, _ in read(~half):
        rise.index_add_(0, pair, (on.softmax(-1) - off.softmax(-1)).float())
    core = meaning.core(rise)
    sums = np.zeros((n_pairs, 2))
    for pair, on, off, strength in read(half):
        moved = meaning.moved(on, off, core[pair])
        np.add.at(sums, pair.numpy(), torch.stack([moved, strength.double()], 1).numpy())
    return core, np.divide(sums[:, 0], sums[:, 1], out=np.zeros(n_pairs), where=sums[:, 1] > 0)
