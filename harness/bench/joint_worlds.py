"""Planted worlds: units whose joint meaning is known, to see what the estimators make of it.

A world is codes on tokens and what is made of them: a residual stream to which each unit adds its write vector (and a
planted conjunction one more), then a live final norm, a random layer downstream, and a linear head. So the floor is
not zero: even units that combine nothing do not add up exactly. Everything is drawn; nothing is trained.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from harness.metrics.joint import excess, meaning, strangers
from harness.metrics.joint.floor import random_frames, turned

OUTCOMES, WIDTH, DRAWS = 64, 32, 3
_UNITS = 60  # that a token's k are chosen from, where a world has more than its pair
_HEARD, _LOUD = 6, 2.0  # directions that a layer downstream amplifies, and how much
_LIVE = 0.35  # size of what the random layer downstream adds, beside a residual of about 1


@dataclass(frozen=True)
class World:
    """truth: what is planted. combines: whether the two mean more together; None where they agree on one outcome, which
    is no code, and yet more than strangers do. draw(generator, contexts): values of A and
    B `[contexts]`, and the residual without them `[contexts, WIDTH]`. and_nats: standard deviation over outcomes of
    what an AND of the two adds to the logits. code: "sum" (each unit writes a random direction), "agree" (nearly the
    same one), "linear" (A − B, B − A and ¾(A + B)), "composition" (each raises four outcomes, one of them in common),
    "magnitude" (the AND is of both being high), "subspace" (all units write where the layer downstream listens),
    "sizes" (units are of very different size)."""

    name: str
    truth: str
    combines: bool | None
    draw: Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray, np.ndarray]]
    and_nats: float = 0.0
    code: str = "sum"


def _independent(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both fire by themselves; the rest of the residual knows nothing of them."""
    return rng.uniform(0.5, 1.5, n), rng.uniform(0.5, 1.5, n), rng.standard_normal((n, WIDTH))


def _exactly_k(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two of the 4 of 60 that fire on a token; the other two are the rest. What fires crowds out what else could."""
    writes = rng.standard_normal((_UNITS, WIDTH))
    others = np.stack([rng.choice(np.arange(2, _UNITS), 2, replace=False) for _ in range(n)])
    return rng.uniform(0.5, 1.5, n), rng.uniform(0.5, 1.5, n), writes[others].sum(1)


def _correlated(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Concepts that come together and grow together."""
    common = rng.uniform(0.5, 1.5, n)
    return common + rng.uniform(0, 0.3, n), common + rng.uniform(0, 0.3, n), rng.standard_normal((n, WIDTH))


def _topic(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A topic on which both fire strongly and which has its own say in the residual; off it both are weak."""
    on = rng.random(n) < 0.7
    direction = 2 * rng.standard_normal(WIDTH)
    level = np.where(on, 1.2, 0.6)
    rest = 0.7 * rng.standard_normal((n, WIDTH)) + on[:, None] * direction
    return level * rng.uniform(0.8, 1.2, n), level * rng.uniform(0.8, 1.2, n), rest


def _detectors(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One cause, seen by both with noise of their own, that also speaks in the residual by itself."""
    cause = rng.normal(1, 0.3, n).clip(0.3)
    direction = rng.standard_normal(WIDTH)
    seen = [(cause + rng.normal(0, 0.2, n)).clip(0.2) for _ in range(2)]
    return seen[0], seen[1], 0.7 * rng.standard_normal((n, WIDTH)) + cause[:, None] * direction


AND_NATS = (0.25, 0.5, 1.0, 2.0)
WORLDS = [
    World("independent", "fire and speak by themselves", False, _independent),
    World("exactly_k", "4 of 60 fire, no interaction", False, _exactly_k),
    World("correlated", "concepts that come and grow together", False, _correlated),
    World("shared_topic", "both follow a topic that speaks too", False, _topic),
    World("two_detectors", "two noisy detectors of one cause", False, _detectors, code="agree"),
    *[
        World(f"and_{nats:g}", f"an AND moves the logits by {nats:g} nat (std over outcomes)", True, _independent, nats)
        for nats in AND_NATS
    ],
    World("linear", "a third thing read out linearly: A−B, B−A, ¾(A+B)", True, _independent, code="linear"),
    World("anisotropic", "all write into 6 directions that later layers amplify", False, _independent, code="subspace"),
    World("strangers", "never fire together; some say far more than others", False, _independent, code="sizes"),
    World("composition", "animal and barks: 4 outcomes each, one in common", None, _independent, code="composition"),
    World("magnitude", "both high (above 1) moves the logits by 1 nat more", True, _independent, 1.0, "magnitude"),
]


@dataclass(frozen=True)
class PairFigures:
    """Of every pair and context `[pairs, contexts]`, floors `[pairs, contexts, DRAWS]`, in bits; `magnitude`: excess of
    the step from low values (0.6) to high ones (1.4); `novel`: 1 or 0. Strangers `[pairs, contexts, KEPT]`: excess,
    effect alone and conjunction of A with the units put in B's place. meaning: how far each unit's core moves where
    both fire, alone: how far by itself, in nats (meaning.py)."""

    excess: np.ndarray
    effect: np.ndarray
    conjunction: np.ndarray
    novel: np.ndarray
    magnitude: np.ndarray
    floor: np.ndarray
    magnitude_floor: np.ndarray
    floor_conjunction: np.ndarray
    effect_b: np.ndarray
    stranger: np.ndarray
    stranger_effect: np.ndarray
    stranger_conjunction: np.ndarray
    meaning_a: np.ndarray
    meaning_b: np.ndarray
    alone_a: np.ndarray
    alone_b: np.ndarray

    def over(self, contexts: int | None = None) -> PairFigures:
        """Means over the first `contexts` (default: all) of every pair: `[pairs]`, floors `[pairs, DRAWS]`."""
        return PairFigures(**{name: values[:, :contexts].mean(1) for name, values in vars(self).items()})


def run(world: World, pairs: int, contexts: int, rng: np.random.Generator, *, shuffle: bool = False) -> PairFigures:
    """Figures of `pairs` pairs of a world, each in a subject of its own. shuffle: B's values are those of other
    contexts, where the AND is not, so nothing can be in common."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in PairFigures.__dataclass_fields__}
    for _ in range(pairs):
        subject = _Subject(world, rng)
        a, b, rest = (torch.from_numpy(np.asarray(part, np.float32)) for part in world.draw(rng, contexts))
        present = torch.ones(contexts)
        if shuffle:
            b = b[torch.from_numpy(rng.permutation(contexts))]
            present = torch.zeros(contexts)  # the AND's own trigger is not where the shuffled unit is
        off = torch.zeros(contexts)
        z = [subject.logits(rest, x, y, present) for x, y in ((a, b), (a, off), (off, b), (off, off))]
        figures = excess.figures(*z)
        low, high = torch.full((contexts,), 0.6), torch.full((contexts,), 1.4)
        steps = [subject.logits(rest, x, y, present) for x, y in ((high, high), (high, low), (low, high), (low, low))]
        written = a[:, None] * subject.writes[0], b[:, None] * subject.writes[1]
        floors, step_floor = [], []
        for frame in random_frames(1, DRAWS, WIDTH, rng)[0]:
            c, d = turned(frame.expand(contexts, -1, -1), *written)
            floors.append([subject.read(rest + part) for part in (c + d, c, d, 0 * c)])
            (low_c, high_c), (low_d, high_d) = (
                [(level / value)[:, None] * vector for level in (0.6, 1.4)] for value, vector in ((a, c), (b, d))
            )
            steps_of = (high_c + high_d, high_c + low_d, low_c + high_d, low_c + low_d)
            step_floor.append([subject.read(rest + part) for part in steps_of])
        step_excess = [excess.excess(*floor) for floor in step_floor]
        of_pair = {
            **vars(figures),
            "magnitude": excess.excess(*steps),
            "floor": torch.stack([excess.excess(*floor) for floor in floors], 1),
            "magnitude_floor": torch.stack(step_excess, 1),
            "floor_conjunction": torch.stack([excess.conjunction(*floor)[0] for floor in floors], 1),
        }
        of_pair |= _against_strangers(subject, rest, z, written)
        of_pair |= _meanings(subject, world, rng, contexts, z)
        for name, values in of_pair.items():
            found[name].append(values.numpy())
    return PairFigures(**{name: np.stack(values) for name, values in found.items()})


def _against_strangers(
    subject: _Subject, rest: Tensor, z: list[Tensor], written: tuple[Tensor, Tensor]
) -> dict[str, Tensor]:
    """Units that never fire with A in B's place, as strong as B in every context: those most like B of many drawn."""
    a, b = written
    size = b.norm(dim=-1, keepdim=True)
    vectors = subject.drawn(strangers.DRAWN)
    put = [size * vector / vector.norm() for vector in vectors]  # each `[contexts, WIDTH]`
    alone = [subject.read(rest + c) for c in put]
    effects = torch.stack([excess.effect(one, z[3]) for one in alone], 1)  # [contexts, drawn]
    effect_b = excess.effect(z[2], z[3])
    cosines = np.array([float(torch.cosine_similarity(vector, a[0], dim=0)) for vector in vectors])
    probed = slice(strangers.PROBED)
    places, _ = strangers.matched(
        effect_b[probed].mean(0, keepdim=True).numpy(),
        np.array([float(torch.cosine_similarity(b[0], a[0], dim=0))]),
        effects[probed].mean(0, keepdim=True).numpy(),
        cosines[None],
    )
    kept = [int(place) for place in places[0]]
    states = [(subject.read(rest + a + put[place]), z[1], alone[place], z[3]) for place in kept]
    return {
        "effect_b": effect_b,
        "stranger": torch.stack([excess.excess(*state) for state in states], 1),
        "stranger_effect": effects[:, kept],
        "stranger_conjunction": torch.stack([excess.conjunction(*state)[0] for state in states], 1),
    }


def _meanings(
    subject: _Subject, world: World, rng: np.random.Generator, contexts: int, z: list[Tensor]
) -> dict[str, Tensor]:
    """What each unit says alone in contexts of its own, and what of that is left where both fire."""
    found: dict[str, Tensor] = {}
    a, b, rest = (torch.from_numpy(np.asarray(part, np.float32)) for part in world.draw(rng, contexts))
    off = torch.zeros(contexts)
    native = subject.logits(rest, off, off, off)
    for name, on in (("a", subject.logits(rest, a, off, off)), ("b", subject.logits(rest, off, b, off))):
        half = contexts // 2
        says = meaning.core((on.softmax(-1) - native.softmax(-1))[:half].mean(0))
        found[f"meaning_{name}"] = meaning.moved(z[0], z[3], says.expand_as(z[0]))
        alone = meaning.moved(on, native, says.expand_as(on))[half:].mean()
        found[f"alone_{name}"] = alone.expand(contexts)
    return found


class _Subject:
    """What is downstream of one pair."""

    def __init__(self, world: World, rng: np.random.Generator) -> None:
        def normal(*shape: int) -> Tensor:
            return torch.from_numpy(rng.standard_normal(shape).astype(np.float32))

        self.world, self.rng = world, rng
        self.head = normal(WIDTH, OUTCOMES) / WIDTH**0.5 * 2
        self.inner, self.outer = normal(WIDTH, 2 * WIDTH) / WIDTH**0.5, normal(2 * WIDTH, WIDTH) / (2 * WIDTH) ** 0.5
        self.writes = 2.0 * normal(2, WIDTH) / WIDTH**0.5 * 2
        if world.code == "agree":
            self.writes[1] = 0.8 * self.writes[0] + 0.6 * self.writes[1]
        if world.code == "linear":
            # At right angles: else, by chance, the third thing is what one of them says alone.
            dog, cat, bird = torch.linalg.qr(self.head[:, :3]).Q.T
            self.head[:, :3] = 2 * torch.stack([dog, cat, bird], 1)
            self.writes = 4 * torch.stack([dog - cat + 0.75 * bird, cat - dog + 0.75 * bird])
        if world.code == "composition":
            animal, barks = (self.head[:, outcomes] for outcomes in ([0, 1, 2, 3], [0, 4, 5, 6]))
            self.writes = 3 * torch.stack([(part / part.norm(dim=0)).sum(1) for part in (animal, barks)])
        if world.code == "subspace":
            self.heard = torch.linalg.qr(normal(WIDTH, _HEARD)).Q  # [WIDTH, 6]
            self.inner += _LOUD * self.heard @ (self.heard.T @ self.inner)
            self.writes = self.drawn(2)
        if world.code == "sizes":
            self.writes = self.writes * torch.exp(0.7 * normal(2, 1))
        self.together = normal(OUTCOMES)

    def drawn(self, n: int) -> Tensor:
        """Write vectors `[n, WIDTH]` of units of the world, as B's but of other things."""
        free = torch.from_numpy(self.rng.standard_normal((n, WIDTH)).astype(np.float32))
        if self.world.code == "agree":
            return 0.8 * self.writes[0] + 0.6 * 4 * free / WIDTH**0.5
        if self.world.code in ("linear", "composition"):
            outcomes = [self.rng.choice(np.arange(8, OUTCOMES), 4, replace=False) for _ in range(n)]
            heads = [self.head[:, chosen] / self.head[:, chosen].norm(dim=0) for chosen in outcomes]  # [WIDTH, 4]
            if self.world.code == "linear":
                return 4 * torch.stack([head[:, 0] - head[:, 1] + 0.75 * head[:, 2] for head in heads])
            return 3 * torch.stack([head.sum(1) for head in heads])
        if self.world.code == "subspace":
            return 4 * free[:, :_HEARD] @ self.heard.T / _HEARD**0.5
        return 4 * free / WIDTH**0.5

    def residual(self, rest: Tensor, a: Tensor, b: Tensor, present: Tensor) -> Tensor:
        return rest + a[:, None] * self.writes[0] + b[:, None] * self.writes[1]

    def logits(self, rest: Tensor, a: Tensor, b: Tensor, present: Tensor) -> Tensor:
        z = self.read(self.residual(rest, a, b, present))
        if self.world.code == "magnitude":
            together = ((a > 1) & (b > 1)).float() * present
        else:
            together = ((a > 0) & (b > 0)).float() * present
        return z + self.world.and_nats * together[:, None] * self.together

    def read(self, x: Tensor) -> Tensor:
        """Residual `[contexts, WIDTH]` → logits: a random layer, a live norm, the head."""
        x = x + _LIVE * torch.relu(x @ self.inner) @ self.outer
        return x / x.square().mean(-1, keepdim=True).add(1e-6).sqrt() @ self.head
