"""The rule explainer: the shortest rule that tells the tokens on which a unit fires from those on which it is silent.

Maximised over the contexts for explaining: balanced accuracy − PENALTY · cost, with tokens that windows are about
counted more than the others. Balanced accuracy is linear in what a rule matches, so the best *set* of tokens under any
condition is exact (every token that gains more than it costs); classes, affixes and further conditions are found by a
beam, further clauses greedily on what is left. Nothing is drawn at random.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.metrics.autointerp.contexts import Context, Explanation, UnitContexts
from harness.metrics.autointerp.rules import CLASSES, EARLIER, LOOK_BACK, Atom, Kind, Rule, at_place, classes_of

PENALTY = 0.03  # balanced accuracy that one word of a rule must be worth: two of forty contexts, and no chance find
TRIGGER_WEIGHT = 4.0  # of the token a window is about, against its neighbours
LARGEST_SET = 12
BEAM = 10
MOST_ATOMS, MOST_CLAUSES = 3, 3
_AFFIX = (2, 3, 4)  # lengths; shorter ones say little, longer ones are words
_LEAST_WORDS = 3  # different words that an affix must cover, or else it is a list of words


class RuleExplainer:
    """Explains with a rule; deterministic, and needs no model."""

    def explain(self, unit: UnitContexts) -> Explanation:
        rule = mine(unit.explain, unit.explain_silent)
        return Explanation(str(rule), "rule", rule.predict)

    def explain_all(self, units: Sequence[UnitContexts]) -> list[Explanation]:
        return [self.explain(unit) for unit in units]


def mine(active: Sequence[Context], silent: Sequence[Context]) -> Rule:
    """The rule that best predicts firing on these windows. The empty rule where none is worth its words."""
    table = _Table([*active, *silent])
    gain = table.gain.copy()
    clauses: list[tuple[Atom, ...]] = []
    while len(clauses) < MOST_CLAUSES:
        found = _best_clause(table, gain)
        if found is None:
            break
        clauses.append(tuple(sorted(found.atoms, key=lambda atom: atom.place % LOOK_BACK)))  # the token itself first
        gain = np.where(found.mask, 0.0, gain)  # what is matched can be matched only once
    return Rule(tuple(clauses))


@dataclass(frozen=True)
class _Clause:
    """Atoms that all hold. mask `[tokens]`; worth: what it adds to balanced accuracy, less what its words cost."""

    atoms: tuple[Atom, ...]
    mask: np.ndarray
    worth: float


def _best_clause(table: _Table, gain: np.ndarray) -> _Clause | None:
    beam = [_Clause((), np.ones(len(gain), bool), 0.0)]
    best: _Clause | None = None
    for _ in range(MOST_ATOMS):
        grown = [longer for clause in beam for longer in _longer(table, gain, clause)]
        grown.sort(key=lambda clause: -clause.worth)  # stable: among equals the first atom wins
        beam, seen = [], set()
        for clause in grown:
            what = clause.mask.tobytes()  # the same tokens in other words lead nowhere new
            if what not in seen:
                seen.add(what)
                beam.append(clause)
            if len(beam) == BEAM:
                break
        if not beam or (best is not None and beam[0].worth <= best.worth):
            break
        best = beam[0]
    return best if best is not None and best.worth > 0 else None


def _longer(table: _Table, gain: np.ndarray, clause: _Clause) -> list[_Clause]:
    """The clause with one more atom: the most worthwhile of the table's, their negations, and the best token sets."""
    inside = gain * clause.mask
    paid = PENALTY * sum(atom.cost for atom in clause.atoms)
    with_atom = table.masks @ inside - PENALTY * table.costs - paid  # [atoms]
    found = []
    for index in np.argsort(-with_atom, kind="stable")[:BEAM]:
        found.append(
            _Clause((*clause.atoms, table.atoms[index]), clause.mask & table.held[index], float(with_atom[index]))
        )
    if clause.atoms:
        without = inside.sum() - table.masks @ inside - PENALTY * (table.costs + 0.5) - paid
        for index in np.argsort(-without, kind="stable")[:BEAM]:
            atom = table.atoms[index]
            negated = Atom(atom.kind, atom.values, atom.place, negated=True)
            found.append(_Clause((*clause.atoms, negated), clause.mask & ~table.held[index], float(without[index])))
    for place in (0, 1, 2):
        if not any(atom.kind == "is" and atom.place == place for atom in clause.atoms):
            found += table.best_set(place, clause, inside, paid)
    return found


class _Table:
    """The windows' tokens as rows to tell apart, and every atom that may matter on them.

    ids: by number of places back, which token stands there, −1 for none `[tokens]`. gain `[tokens]`: what matching
    a token adds to balanced accuracy (negative where the unit is silent). held `[atoms, tokens]` bool, masks the same
    as float, costs `[atoms]`.
    """

    def __init__(self, windows: Sequence[Context]) -> None:
        width = max(len(window.tokens) for window in windows)
        self.names = sorted({token for window in windows for token in window.tokens})
        number = {name: index for index, name in enumerate(self.names)}
        ids = np.full((len(windows), width), -1)  # -1: no token
        fires = np.zeros((len(windows), width), bool)
        weight = np.zeros((len(windows), width))
        for row, window in enumerate(windows):
            n = len(window.tokens)
            ids[row, :n] = [number[token] for token in window.tokens]
            fires[row, :n] = np.asarray(window.activations) > 0
            # What stands left of a window is unknown, so its first tokens say nothing of conditions on the left.
            weight[row, LOOK_BACK:n] = 1
            weight[row, window.trigger] = TRIGGER_WEIGHT
        self.used = weight > 0
        self.ids = [_before(ids, place)[self.used] for place in range(LOOK_BACK + 1)]
        fired, weight = fires[self.used], weight[self.used]
        self.gain = np.zeros(len(weight))
        for mask, sign in ((fired, 0.5), (~fired, -0.5)):
            if mask.any():
                self.gain[mask] = sign * weight[mask] / weight[mask].sum()

        self.atoms = self._atoms(Counter(self.ids[0][fired].tolist()))
        asked = self._asked()
        self.held = np.stack(
            [at_place(known[ids], atom.place)[self.used] for atom, known in zip(self.atoms, asked, strict=True)]
        )
        self.masks = self.held.astype(np.float64)
        self.costs = np.array([atom.cost for atom in self.atoms])

    def _asked(self) -> np.ndarray:
        """What every atom says of every name, and in the last column of no token. `[atoms, names + 1]` bool"""
        asked = np.zeros((len(self.atoms), len(self.names) + 1), bool)
        done: dict[tuple[str, tuple[str, ...]], int] = {}  # the same question at another place
        for row, atom in enumerate(self.atoms):
            first = done.setdefault((atom.kind, atom.values), row)
            asked[row, :-1] = asked[first, :-1] if first < row else atom.asks(self.names)
        return asked

    def _atoms(self, fired: Counter[int]) -> list[Atom]:
        present = frozenset().union(*(classes_of(name) for name in self.names))
        atoms = [Atom("class", (name,), place) for place in (0, 1, 2, EARLIER) for name in CLASSES if name in present]
        words: dict[tuple[Kind, str], set[str]] = {}
        for index in fired:
            word = self.names[index].strip()
            for length in _AFFIX:
                if len(word) > length:
                    words.setdefault(("begins", word[:length]), set()).add(word)
                    words.setdefault(("ends", word[-length:]), set()).add(word)
        atoms += [Atom(kind, (affix,)) for (kind, affix), of in sorted(words.items()) if len(of) >= _LEAST_WORDS]
        # Of single tokens somewhere before, those that stand before a firing more often than elsewhere.
        return atoms + [Atom("is", (self.names[index],), EARLIER) for index in self._telling_before()]

    def _telling_before(self, most: int = 20) -> list[int]:
        gains = np.zeros(len(self.names))
        for place in range(1, LOOK_BACK + 1):
            known = self.ids[place] >= 0
            np.add.at(gains, self.ids[place][known], self.gain[known])
        order = np.argsort(-gains, kind="stable")[:most]
        return [int(index) for index in order if gains[index] > 0]

    def best_set(self, place: int, clause: _Clause, inside: np.ndarray, paid: float) -> list[_Clause]:
        """The clause and `the token at this place is one of …`, the most worthwhile set; none where no token is."""
        ids = self.ids[place]
        known = ids >= 0
        gains = np.bincount(ids[known], weights=inside[known], minlength=len(self.names)) - PENALTY
        order = [int(index) for index in np.argsort(-gains, kind="stable")[:LARGEST_SET] if gains[index] > 0]
        if not order:
            return []
        atom = Atom("is", tuple(self.names[index] for index in order), place)
        worth = float(gains[order].sum()) - PENALTY * (atom.cost - len(order)) - paid
        return [_Clause((*clause.atoms, atom), clause.mask & np.isin(ids, order), worth)]


def _before(ids: np.ndarray, places: int) -> np.ndarray:
    """Id of the token so many places before each token, −1 where the window does not reach. `[windows, tokens]`"""
    found = np.full_like(ids, -1)
    found[:, places:] = ids[:, : max(0, ids.shape[1] - places)]
    return found
