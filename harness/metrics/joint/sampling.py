"""What the supporting figures are computed on: pairs and groups drawn on dev, tokens of dev and of eval as arrays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
import torch

from harness.metrics.joint.counts import Meetings, usable
from harness.metrics.joint.firing import Firing
from harness.metrics.joint.interaction import PaddedContexts
from harness.metrics.joint.readout import TokenFeatures
from harness.systems.system import Site

if TYPE_CHECKING:
    from harness.corpus import Batch

_SEEN = 5  # firings on dev that a unit needs for a readout to learn of it


@dataclass(frozen=True)
class Positions:
    """Tokens in stored order, `[tokens]` int64 each: what they are, of which document, of which domain; next: the token
    after, −1 at the end of a sequence; ply: the half-move that is being written, −1 outside of games."""

    ids: np.ndarray
    next: np.ndarray
    document: np.ndarray
    domain: np.ndarray
    ply: np.ndarray

    def keep(self, tokens: np.ndarray) -> Positions:
        """Only the tokens of the mask `[tokens]`; what came next stays as it was."""
        return Positions(*(getattr(self, column.name)[tokens] for column in fields(self)))

    @staticmethod
    def of(batches: Iterable[Batch]) -> Positions:
        parts: list[list[np.ndarray]] = []
        for batch in batches:
            ids = batch.input_ids.cpu()
            after = torch.cat([ids[:, 1:], torch.full_like(ids[:, :1], -1)], 1)
            columns = ids, after, batch.document.cpu(), batch.domain.cpu(), batch.ply.cpu()
            parts.append([column.reshape(-1).long().numpy() for column in columns])
        return Positions(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def draw_pairs(dev: Firing, met: Meetings, test: Meetings, least: int, most: float, n: int, rng: np.random.Generator):
    """Up to `n` pairs `[pairs, 2]`, in proportion to how often they meet on dev, without putting back, among those of
    usable units that meet `least` times on dev and on eval."""
    good = usable(dev, least, most)
    candidates = np.stack([met.i, met.j], 1)
    there = looked_up(test, candidates, dev.n_units)
    enough = (met.n >= least) & (there >= least) & good[met.i] & good[met.j]
    finish = np.where(enough, rng.exponential(size=len(enough)) / np.maximum(met.n, 1), np.inf)
    return candidates[np.argsort(finish, kind="stable")[: min(n, int(enough.sum()))]].astype(np.int64)


def looked_up(met: Meetings, pairs: np.ndarray, n_units: int) -> np.ndarray:
    """How often pairs `[pairs, 2]`, i < j, met; 0 where they are not listed. `[pairs]`"""
    if not len(met.n):
        return np.zeros(len(pairs), np.int64)
    keys = met.i.astype(np.int64) * n_units + met.j  # ascending: pairs are in order
    wanted = pairs[:, 0].astype(np.int64) * n_units + pairs[:, 1]
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, met.n[place], 0)


def draw_groups(dev: Firing, size: int, least: int, most: float, n: int, rng: np.random.Generator) -> np.ndarray:
    """Up to `n` different groups `[groups, size]` of usable units that fire on one token: a token at random, then
    `size` of its units. So nothing is chosen for what is to be measured."""
    firing = dev.keep(usable(dev, least, most)[dev.units])
    lengths = np.diff(firing.indptr)
    tokens = np.flatnonzero(lengths >= size)
    if not len(tokens):
        return np.zeros((0, size), np.int64)
    found = set()
    for token in rng.choice(tokens, 2 * n):
        units = firing.units[firing.indptr[token] : firing.indptr[token + 1]]
        found.add(tuple(sorted(rng.choice(units, size, replace=False).tolist())))
        if len(found) == n:
            break
    return np.array(sorted(found), np.int64)


@dataclass(frozen=True)
class Layout:
    """Where the units of each site stand among all that a readout sees, and what is usual for their values on dev.

    place: of a site's units `[units]`, −1 where too rare on dev; usual: root mean square `[units]`."""

    place: Mapping[Site, np.ndarray]
    usual: Mapping[Site, np.ndarray]
    n_units: int

    @staticmethod
    def of(dev: Mapping[Site, Firing]) -> Layout:
        place, usual, n = {}, {}, 0
        for site, firing in dev.items():
            seen = firing.rates >= _SEEN
            place[site] = np.where(seen, n + np.cumsum(seen) - 1, -1)
            squares = np.bincount(firing.units, firing.values.astype(np.float64) ** 2, minlength=firing.n_units)
            usual[site] = np.sqrt(squares / np.maximum(firing.rates, 1))
            n += int(seen.sum())
        return Layout(place, usual, n)

    def values(self, site: Site, firing: Firing) -> np.ndarray:
        """Of every entry, in units of what is usual for its unit. `[entries]` float32; as they are for unseen units."""
        usual = self.usual[site][firing.units]
        return (firing.values / np.where(usual > 0, usual, 1)).astype(np.float32)

    def codes(self, sites: Mapping[Site, Firing], known: tuple[np.ndarray, ...] = (), classes: tuple[int, ...] = ()):
        """All sites together, for a readout."""
        tokens, units, values, n = [], [], [], 0
        for site, firing in sites.items():
            place = self.place[site][firing.units]
            seen = place >= 0
            tokens.append(firing.token[seen])
            units.append(place[seen])
            values.append(self.values(site, firing)[seen])
            n = firing.n_tokens
        token, unit, value = (np.concatenate(part) for part in (tokens, units, values))
        order = np.lexsort((unit, token))
        indptr = np.concatenate([[0], np.cumsum(np.bincount(token, minlength=n))])
        return TokenFeatures(
            torch.from_numpy(indptr),
            torch.from_numpy(unit[order]),
            torch.from_numpy(value[order]),
            self.n_units,
            tuple(torch.from_numpy(part) for part in known),
            classes,
        )


def outcomes_of(text: Positions, n: int) -> np.ndarray:
    """The n − 1 commonest next tokens of a text, by how common."""
    found, counts = np.unique(text.next[text.next >= 0], return_counts=True)
    return found[np.lexsort((found, -counts))][: n - 1]


def as_outcomes(text: Positions, common: np.ndarray) -> np.ndarray:
    """Number of each token's next one in `common`, len(common) for all others. `[tokens]` int64"""
    order = np.argsort(common)
    place = np.minimum(np.searchsorted(common[order], text.next), len(common) - 1)
    return np.where(common[order][place] == text.next, order[place], len(common))


def contexts_of(
    firing: Firing, values: np.ndarray, pairs: np.ndarray, y: np.ndarray, offset: torch.Tensor, fold: np.ndarray,
    allowed: np.ndarray, most: int, rng: np.random.Generator,
) -> tuple[PaddedContexts, np.ndarray]:  # fmt: skip
    """Contexts of one site's pairs for interaction.py: up to `most` / 2 where at least one fires and as many where
    neither does, at random; tokens of them `[pairs, n]`, −1 for padding. values `[entries]`; y, fold, allowed (bool)
    and offset by token."""
    token = firing.token
    rows = []
    for a, b in pairs:
        of_a, of_b = firing.column(a), firing.column(b)
        at = np.union1d(token[of_a], token[of_b])
        neither = np.ones(firing.n_tokens, bool)
        neither[at] = False
        some = rng.permutation(at[allowed[at]])[: most // 2]
        none = rng.permutation(np.flatnonzero(neither & allowed))[: len(some)]
        chosen = np.sort(np.concatenate([some, none]))
        in_a, in_b = np.zeros((2, firing.n_tokens), np.float32)
        in_a[token[of_a]], in_b[token[of_b]] = values[of_a], values[of_b]
        rows.append((chosen, in_a[chosen], in_b[chosen]))
    n = max(len(row[0]) for row in rows)
    tokens = np.full((len(rows), n), -1)
    a, b = np.zeros((2, len(rows), n), np.float32)
    for i, (at, in_a, in_b) in enumerate(rows):
        tokens[i, : len(at)], a[i, : len(at)], b[i, : len(at)] = at, in_a, in_b
    there = np.maximum(tokens, 0)
    contexts = PaddedContexts(
        torch.from_numpy(a),
        torch.from_numpy(b),
        torch.from_numpy(y[there]),
        offset[torch.from_numpy(there)],
        torch.from_numpy((tokens >= 0).astype(np.float32)),
        torch.from_numpy(fold[there]),
    )
    return contexts, tokens
