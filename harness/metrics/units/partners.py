"""Who fires with a unit: counts of the four states of a pair, and one context of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import sparse

from harness.metrics.autointerp.firings import Firings
from harness.metrics.units.contexts import Windows, levels_of
from harness.metrics.units.left import Named, StrongPair
from harness.metrics.units.reports import Examples, Outcome, PairContext, Partner, Predictions

MOST, LEAST_TOGETHER = 4, 5
_Fires = tuple[np.ndarray, np.ndarray]  # tokens (ascending) and strengths, [firings]
_NEVER: _Fires = (np.zeros(0, int), np.zeros(0, np.float32))


class Company:
    """All units of all sites, and the tokens that they fire on. tokens: how many are counted."""

    def __init__(self, sites: Mapping[str, Firings], tokens: int) -> None:
        self.sites, self.tokens = sites, tokens
        self.offsets = dict(zip(sites, np.cumsum([0, *(len(f.units) for f in sites.values())]), strict=False))
        self.units: list[Named] = [(site, int(unit)) for site, firings in sites.items() for unit in firings.units]
        self.place = {unit: place for place, unit in enumerate(self.units)}
        self.counts = np.concatenate([firings.counts for firings in sites.values()])  # [units]
        rows = [
            sparse.csr_array((np.ones(len(f.tokens), np.int32), f.tokens, f.starts), shape=(len(f.units), f.n_tokens))
            for f in sites.values()
        ]
        self._fires = sparse.csr_array(sparse.vstack(rows))  # [units, tokens]
        self._by_token = sparse.csr_array(self._fires.T)

    def fires(self, unit: Named) -> _Fires:
        place = self.place.get(unit)
        return _NEVER if place is None else self.sites[unit[0]].of_column(place - int(self.offsets[unit[0]]))

    def of(self, unit: Named, pairs: Sequence[StrongPair]) -> list[tuple[Named, float, int, StrongPair | None]]:
        """Partner, lift, tokens together, and the pair if joint edited it. Those of `pairs` first, then by lift, of the
        same site and of others, with at least LEAST_TOGETHER tokens together."""
        own = self.place[unit]
        together = (self._fires[[own]] @ self._by_token).toarray()[0]  # [units]
        lift = together * self.tokens / (self.counts.astype(float) * self.counts[own])
        found: dict[Named, tuple[float, int, StrongPair | None]] = {}
        for pair in (pair.seen_from(unit) for pair in pairs if unit in (pair.a, pair.b)):
            place = self.place.get(pair.b)
            found[pair.b] = (0.0, 0, pair) if place is None else (float(lift[place]), int(together[place]), pair)
        able = np.flatnonzero(together >= LEAST_TOGETHER)
        for place in able[np.lexsort((able, -together[able], -lift[able]))][: MOST + len(found) + 1]:
            if place != own:
                found.setdefault(self.units[place], (float(lift[place]), int(together[place]), None))
        return [(partner, *rest) for partner, rest in found.items()][:MOST]


def described(
    company: Company, windows: Windows, unit: Named, levels: np.ndarray, pairs: Sequence[StrongPair],
    piece: Mapping[str, int],
) -> list[Partner]:  # fmt: skip
    """levels: of the unit on every token `[tokens]`. piece: index of every text in the file's `pieces`."""
    own = company.fires(unit)
    found = []
    for partner, lift, together, pair in company.of(unit, pairs):
        other = company.fires(partner)
        of_partner = levels_of(len(levels), *other)
        a, b = len(own[0]) - together, len(other[0]) - together
        found.append(
            Partner(
                site=partner[0],
                unit=partner[1],
                lift=float(f"{lift:.6g}"),
                neither=company.tokens - a - b - together,
                a=a,
                b=b,
                both=together,
                examples=_examples(windows, levels, of_partner),
                excess=None if pair is None else pair.excess,
                floor=None if pair is None else pair.floor,
                text=None if pair is None else pair.text,
                token=None if pair is None else pair.token,
                next=None if pair is None else _predictions(pair, piece),
            )
        )
    return found


def _examples(windows: Windows, levels: np.ndarray, of_partner: np.ndarray) -> Examples:
    """Where one is loudest while the other is silent; for both, where the quieter of the two is loudest."""
    quieter = np.minimum(levels, of_partner)

    def loudest(clear: np.ndarray) -> PairContext | None:
        token = int(clear.argmax())
        return windows.around_pair(token, levels, of_partner) if clear[token] > 0 else None

    return Examples(
        a=loudest(np.where(of_partner == 0, levels, 0)),
        b=loudest(np.where(levels == 0, of_partner, 0)),
        both=loudest(quieter),
    )


def _predictions(pair: StrongPair, piece: Mapping[str, int]) -> Predictions:
    said: dict[str, tuple[Outcome, ...]] = {
        state: tuple((piece[token], p) for token, p in outcomes) for state, outcomes in pair.next.items()
    }
    return Predictions(**said)
