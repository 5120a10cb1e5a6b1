"""Takes contexts through the edits and gives the figures of each: which variants are run, and what becomes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from harness.metrics.joint import excess, meaning
from harness.metrics.joint.floor import rotated_values, turned
from harness.metrics.joint.pairs import PairContexts, Stratum
from harness.systems.prefix import Entries, Prefix
from harness.systems.system import Site, System

if TYPE_CHECKING:
    from harness.corpus import PackedSplit

LOGITS = 2**24  # of one forward pass at most, over all its variants (64 MiB in float32)
SHOWN = 3  # likeliest tokens kept of every distribution
_STATES = ("11", "10", "01", "00")


@dataclass(frozen=True)
class PairTable:
    """What is fixed for every pair of a run. stratum `[pairs]` into strata; units `[pairs, 2]`; low, high `[pairs, 2]`:
    values between which the magnitude version switches; angle `[pairs]`; frames `[pairs, draws, 2, d_model]`.

    strangers `[pairs, kept]`: units in B's place, −1 for none; sign `[pairs, kept]`: of their values;
    core `[pairs, 2, vocabulary]`, boolean: what each unit says alone (meaning.py). None until they are known."""

    strata: list[Stratum]
    stratum: np.ndarray
    units: np.ndarray
    low: np.ndarray
    high: np.ndarray
    angle: np.ndarray
    frames: Tensor
    strangers: np.ndarray | None = None
    sign: np.ndarray | None = None
    core: Tensor | None = None


@dataclass(frozen=True)
class PairEffects:
    """Figures of contexts by name, in bits: `[contexts]`; excess and effect of the floor `[contexts, draws]`, its other
    figures of the first draw. stranger: excess, effect alone, conjunction and A's meaning `[contexts, kept]` with the
    strangers in B's place. Top tokens and their probabilities `[contexts, 4, SHOWN]` with both, A alone,
    B alone, neither."""

    real: dict[str, np.ndarray]
    floor: dict[str, np.ndarray]
    magnitude: dict[str, np.ndarray]
    rotated: dict[str, np.ndarray]
    stranger: dict[str, np.ndarray]
    top: np.ndarray
    probability: np.ndarray


def run(
    system: System,
    split: PackedSplit,
    contexts: PairContexts,
    pairs: PairTable,
    report: Callable[[int, int], None],
    *,
    extras: bool = True,
) -> PairEffects:
    """Every context with both units, one, the other and neither; the same with random directions in their place; and,
    with `extras`, between each unit's low and high value, and with the pair rotated. A sequence's contexts run
    together.
    """
    n, draws = len(contexts), pairs.frames.shape[1]
    parts: dict[str, np.ndarray] = {}
    top = np.zeros((n, 4, SHOWN), np.int32)
    probability = np.zeros((n, 4, SHOWN), np.float32)
    kept = pairs.strangers.shape[1] if extras and pairs.strangers is not None else 0
    variants = len(_STATES) + 3 * draws + 10 * extras + 2 * kept  # of a context, see Variants.logits
    done = 0
    for prefix, chunk in by_sequence(system, split, contexts.token, variants):
        variant = Variants(system, prefix, contexts, chunk, pairs, split.length)
        z = variant.logits(draws, extras, kept)
        found = _figures(z, draws, extras) | (variant.of_strangers(z, kept) if kept else {})
        for name, values in found.items():
            if name not in parts:
                parts[name] = np.zeros((n, *values.shape[1:]))
            parts[name][chunk] = values.cpu().numpy()
        for i, state in enumerate(_STATES):
            likeliest = z[state].softmax(-1).topk(SHOWN)
            top[chunk, i] = likeliest.indices.cpu().numpy()
            probability[chunk, i] = likeliest.values.cpu().numpy()
        done += len(chunk)
        report(done, n)

    def group(prefix: str) -> dict[str, np.ndarray]:
        return {name.split("/")[1]: values for name, values in parts.items() if name.startswith(f"{prefix}/")}

    real, floor, magnitude, rotated, stranger = (
        group(name) for name in ("real", "floor", "magnitude", "rotated", "stranger")
    )
    return PairEffects(real, floor, magnitude, rotated, stranger, top, probability)


def by_sequence(
    system: System, split: PackedSplit, token: np.ndarray, variants: int
) -> Iterator[tuple[Prefix, np.ndarray]]:
    """Contexts at `token` `[contexts]` (places in the split), one sequence after the other, as many at once as fit with
    so many variants each: the sequence as the system runs it natively, and which contexts."""
    size = max(1, LOGITS // (variants * system.model.config.vocab_size))
    order = np.argsort(token, kind="stable")
    sequence = token[order] // split.length
    starts = np.flatnonzero(np.diff(sequence, prepend=-1))
    for start, end in zip(starts, [*starts[1:], len(token)], strict=True):
        tokens = split.batch(torch.tensor([sequence[start]])).input_ids[0].to(system.device)
        prefix = Prefix(system, tokens)
        for first in range(start, end, size):
            yield prefix, order[first : min(first + size, end)]


def _figures(z: dict[str, Tensor], draws: int, extras: bool) -> dict[str, Tensor]:
    """Figures of the contexts of one chunk, "real/excess" → `[contexts]`, "floor/excess" → `[contexts, draws]`."""
    real = [z[state] for state in _STATES]
    floors = [[*(z[f"floor{d}/{state}"] for state in _STATES[:3]), z["00"]] for d in range(draws)]
    found = {
        "real/excess": excess.excess(*real),
        "real/effect": excess.effect(real[0], real[3]),
        "real/novel": excess.novel_top(*real).float(),
        "floor/excess": torch.stack([excess.excess(*logits) for logits in floors], 1),
        "floor/effect": torch.stack([excess.effect(logits[0], logits[3]) for logits in floors], 1),
        "floor/novel": excess.novel_top(*floors[0]).float(),
    }
    conjunctions = {"real": real, "floor": floors[0]}
    if extras:
        for group, before in (("magnitude/", "magnitude/"), ("floor/magnitude_", "floor/magnitude/")):
            steps = [z[f"{before}{state}"] for state in _STATES]
            found[f"{group}excess"] = excess.excess(*steps)
            found[f"{group}effect"] = excess.effect(steps[0], steps[3])
        conjunctions["rotated"] = [z["11"], z["rotated/10"], z["rotated/01"], z["00"]]
        found["rotated/excess"] = excess.excess(*conjunctions["rotated"])
    # Its steps are many and small: all at once they cost little more than those of one.
    together = excess.conjunction(*(torch.cat(column) for column in zip(*conjunctions.values(), strict=True)))[0]
    for group, values in zip(conjunctions, together.split(len(real[0])), strict=True):
        found[f"{group}/conjunction"] = values
    return found


class Variants:
    """The variants of a chunk of contexts of one sequence."""

    def __init__(
        self, system: System, prefix: Prefix, contexts: PairContexts, chunk: np.ndarray, pairs: PairTable, length: int
    ) -> None:
        self.prefix, self.pairs, self.device = prefix, pairs, system.device
        pair = contexts.pair[chunk]
        self.positions = torch.as_tensor(contexts.token[chunk] % length, device=self.device)
        self.units_of = [self._tensor(pairs.units[pair, side]) for side in (0, 1)]
        self.value = self._tensor(contexts.value_a[chunk]), self._tensor(contexts.value_b[chunk])
        self.strength = self._tensor(contexts.strength_a[chunk]), self._tensor(contexts.strength_b[chunk])
        self.low = self._tensor(pairs.low[pair, 0]), self._tensor(pairs.low[pair, 1])
        self.high = self._tensor(pairs.high[pair, 0]), self._tensor(pairs.high[pair, 1])
        self.angle = self._tensor(pairs.angle[pair])
        self.frames = pairs.frames[torch.as_tensor(pair)].to(self.device)  # [contexts, draws, 2, d_model]
        self.pair = pair
        of_stratum = pairs.stratum[pair]
        self.sites: list[dict[Site, Tensor]] = [{}, {}]  # of A and of B: site → which contexts
        for index in np.unique(of_stratum):
            here = self._tensor(np.flatnonzero(of_stratum == index))
            for side, site in enumerate((pairs.strata[index].a, pairs.strata[index].b)):
                known = self.sites[side].get(site, here[:0])
                self.sites[side][site] = torch.cat([known, here])

    def logits(self, draws: int, extras: bool, kept: int) -> dict[str, Tensor]:
        """`[contexts, vocabulary]` of every variant, by name: the units themselves set; random directions in their
        place, which are then both off; and B off, with each of its strangers in its place."""
        (a, b), zero = self.value, torch.zeros_like(self.value[0])
        states = {"11": (a, b), "10": (a, zero), "01": (zero, b), "00": (zero, zero)}
        if extras:
            (low_a, low_b), (high_a, high_b) = self.low, self.high
            steps = [(high_a, high_b), (high_a, low_b), (low_a, high_b), (low_a, low_b)]
            states |= {f"magnitude/{state}": step for state, step in zip(_STATES, steps, strict=True)}
            states["rotated/10"], states["rotated/01"] = rotated_values(self.value, self.strength, self.angle)
        pushes = self._floor(draws, extras)
        others: dict[str, tuple[Tensor, Tensor]] = {}
        for place in range(kept):
            assert self.pairs.strangers is not None
            assert self.pairs.sign is not None
            units, sign = (self._tensor(of[self.pair, place]) for of in (self.pairs.strangers, self.pairs.sign))
            there = self.stranger(units, sign)
            for state, value in (("11", a), ("01", zero)):
                states[f"stranger{place}/{state}"] = (value, zero)
                others[f"stranger{place}/{state}"] = there
        return self.run(states | dict.fromkeys(pushes, (zero, zero)), pushes, others)

    def stranger(self, units: Tensor, sign: Tensor) -> tuple[Tensor, Tensor]:
        """Units `[contexts]` at B's site (−1: none) with the values at which they write as strongly as B does."""
        safe = units.clamp_min(0)
        size = self.written(1, safe, torch.ones_like(self.value[1])).norm(dim=-1)
        return units, sign.to(size.dtype) * self.strength[1] / size.clamp_min(1e-12)

    def of_strangers(self, z: dict[str, Tensor], kept: int) -> dict[str, Tensor]:
        """Figures with each stranger in B's place `[contexts, kept]`, and of B what they are compared with."""
        assert self.pairs.core is not None
        core = self.pairs.core[torch.as_tensor(self.pair)].to(self.device)  # [contexts, 2, vocabulary]
        states = [[z[f"stranger{i}/11"], z["10"], z[f"stranger{i}/01"], z["00"]] for i in range(kept)]
        found = {
            "real/effect_b": excess.effect(z["01"], z["00"]),
            "real/meaning_a": meaning.moved(z["11"], z["00"], core[:, 0]),
            "real/meaning_b": meaning.moved(z["11"], z["00"], core[:, 1]),
            "stranger/excess": torch.stack([excess.excess(*state) for state in states], 1),
            "stranger/effect": torch.stack([excess.effect(state[2], state[3]) for state in states], 1),
            "stranger/meaning_a": torch.stack([meaning.moved(s[0], s[3], core[:, 0]) for s in states], 1),
        }
        together = excess.conjunction(*(torch.cat(column) for column in zip(*states, strict=True)))[0]
        found["stranger/conjunction"] = torch.stack(together.split(len(core)), 1)
        return found

    def _floor(self, draws: int, extras: bool) -> dict[str, tuple[Tensor, Tensor]]:
        """What is added in the place of what A and B write, each `[contexts, d_model]`, by variant."""
        written = [self.written(side, self.units_of[side], self.value[side]) for side in (0, 1)]
        pushes: dict[str, tuple[Tensor, Tensor]] = {}
        for draw in range(draws):
            a, b = turned(self.frames[:, draw], written[0], written[1])
            pushes |= {f"floor{draw}/11": (a, b), f"floor{draw}/10": (a, 0 * b), f"floor{draw}/01": (0 * a, b)}
            if extras and draw == 0:
                (low_a, high_a), (low_b, high_b) = (
                    [(part[side] / self.value[side])[:, None] * vector for part in (self.low, self.high)]
                    for side, vector in ((0, a), (1, b))
                )
                steps = [(high_a, high_b), (high_a, low_b), (low_a, high_b), (low_a, low_b)]
                pushes |= {f"floor/magnitude/{state}": step for state, step in zip(_STATES, steps, strict=True)}
        return pushes

    def run(
        self,
        states: dict[str, tuple[Tensor, Tensor]],
        pushes: dict[str, tuple[Tensor, Tensor]] | None = None,
        others: dict[str, tuple[Tensor, Tensor]] | None = None,
    ) -> dict[str, Tensor]:
        """Logits of every state: values of A and B `[contexts]`; what is added in the place of each; units at B's site
        that are set besides (−1: none), and their values."""
        pushes, others = pushes or {}, others or {}
        edits: dict[Site, list[tuple[Tensor, Tensor, Tensor]]] = {}
        added: dict[Site, Tensor] = {}
        n = len(self.positions)
        for block, (name, values) in enumerate(states.items()):
            for side in (0, 1):
                for site, here in self.sites[side].items():
                    row = block * n + here
                    edits.setdefault(site, []).append((row, self.units_of[side][here], values[side][here]))
                    if side == 1 and name in others:
                        units, set_to = (part[here] for part in others[name])
                        there = units >= 0
                        edits[site].append((row[there], units[there], set_to[there].to(values[1].dtype)))
                    if name in pushes:
                        vectors = pushes[name][side]
                        if site not in added:
                            added[site] = vectors.new_zeros(n * len(states), vectors.shape[1])
                        added[site][row] += vectors[here]
        joined = {
            site: Entries(*(torch.cat(column) for column in zip(*parts, strict=True))) for site, parts in edits.items()
        }
        z = self.prefix.logits(self.positions.repeat(len(states)), joined, added)
        z = z if z.dtype == torch.float64 else z.float()
        return dict(zip(states, z.split(n), strict=True))

    def written(self, side: int, units: Tensor, values: Tensor) -> Tensor:
        """What units at the site of A or B write in every context: `[contexts, d_model]`."""
        found = self.frames.new_zeros(len(units), self.frames.shape[-1], dtype=self.prefix.dtype)
        for site, here in self.sites[side].items():
            found[here] = self.prefix.written(site, self.positions[here], units[here], values[here])
        return found

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.as_tensor(values, device=self.device)
