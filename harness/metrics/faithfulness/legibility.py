"""How much of what a unit does is left when a short description says when it fires, and how much?

A rank-1 unit adds act(uᵀx) v: the direction is fixed, the number is all there is to describe. Here the number comes
from a description in place of x: always the same where the unit fires, the mean over tokens that are the same, or the
mean where a mined rule matches and nothing elsewhere. It is put in the running model, in contexts in which the unit
fires and in those in which only the description says so. A unit whose behaviour survives is characterised by what a
person can write down. [U: ours]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from harness.base.errors import HarnessError
from harness.corpus.stored import PackedSplit
from harness.corpus.tokenizer import shown
from harness.metrics.autointerp.contexts import Context
from harness.metrics.autointerp.mining import mine
from harness.metrics.faithfulness.sampling import Chunk, chunks
from harness.metrics.joint.pairs import Fired
from harness.systems.evaluation import Evaluation
from harness.systems.prefix import Entries
from harness.systems.system import Site, System

DESCRIPTIONS = ("mean", "token", "rule", "other")
LEAST = 20  # tokens of dev on which a unit must fire to be described
WINDOW = 10  # tokens before one, that a rule is mined on
EXAMPLES = 20  # windows in which the unit fires, and as many in which it does not


@dataclass(frozen=True)
class Pieces:
    """A split as it is read: ids and document `[tokens]`, each token decoded, in sequences of `length`."""

    ids: np.ndarray
    document: np.ndarray
    text: np.ndarray
    length: int

    def window(self, token: int, value: np.ndarray) -> Context:
        """The token with those before it in its sequence and document; value `[tokens]`: the unit's, 0 where silent."""
        first = max(token - WINDOW, token // self.length * self.length)
        while self.document[first] != self.document[token]:
            first += 1
        here = slice(first, token + 1)
        return Context(
            int(self.document[token]), tuple(self.text[here].tolist()), tuple(np.abs(value[here]).tolist()),
            token - first,
        )  # fmt: skip

    def matches(self, predict: Callable[[Context], Sequence[float]]) -> np.ndarray:
        """Where a rule matches. `[tokens]` bool"""
        found = np.zeros(len(self.ids), bool)
        edges = np.flatnonzero(np.diff(self.document, prepend=-1) | (np.arange(len(self.ids)) % self.length == 0))
        for first, last in zip(edges, [*edges[1:], len(self.ids)], strict=True):
            tokens = tuple(self.text[first:last].tolist())
            context = Context(int(self.document[first]), tokens, (0.0,) * len(tokens), 0)
            found[first:last] = np.array(predict(context)) > 0
        return found


@dataclass(frozen=True)
class Described:
    """Of one unit, by description: the value that it says the unit has on every token of eval `[descriptions, tokens]`,
    and the unit's own `[tokens]`. On dev `[tokens]`: its own value, and where its rule matches; matched: on eval."""

    site: Site
    unit: int
    said: np.ndarray
    value: np.ndarray
    value_dev: np.ndarray
    matched_dev: np.ndarray
    matched: np.ndarray


def pieces(evaluation: Evaluation, *, dev: bool) -> Pieces:
    """Of the tokens that have codes, or as many of dev."""
    if evaluation.tokenizer is None:
        raise HarnessError("a mined rule shows text, and this evaluation has no tokenizer")
    batches = list(evaluation.batches(evaluation.codes_sequences, dev=dev))
    ids, document = (
        np.concatenate([getattr(b, name).reshape(-1).cpu().numpy() for b in batches])
        for name in ("input_ids", "document")
    )
    known = {int(index): shown(evaluation.tokenizer, int(index)) for index in np.unique(ids)}
    text = np.empty(len(ids), object)
    text[:] = [known[index] for index in ids.tolist()]
    return Pieces(ids, document, text, evaluation.split.length)


def describe(
    site: Site, unit: int, dev: Fired, dev_text: Pieces, test: Fired, text: Pieces, rng: np.random.Generator
) -> Described:
    """Descriptions are made on dev."""
    own_dev, own = _values(dev, unit), _values(test, unit)
    fires = np.flatnonzero(own_dev)
    usual = own_dev[fires].mean()
    sums = np.bincount(dev_text.ids, own_dev, minlength=int(max(dev_text.ids.max(), text.ids.max())) + 1)
    counts = np.bincount(dev_text.ids, minlength=len(sums))
    of_token = np.divide(sums, counts, out=np.zeros(len(sums)), where=counts > 0)
    active = rng.choice(fires, min(EXAMPLES, len(fires)), replace=False)
    quiet = np.flatnonzero(own_dev == 0)  # few for a unit that hardly ever is
    silent = rng.choice(quiet, min(EXAMPLES, len(quiet)), replace=False) if len(quiet) else quiet
    rule = mine(*([dev_text.window(int(token), own_dev) for token in tokens] for tokens in (active, silent)))
    matched_dev, matched = dev_text.matches(rule.predict), text.matches(rule.predict)
    of_rule = own_dev[matched_dev].mean() if matched_dev.any() else 0.0
    said = np.stack([np.where(own != 0, usual, 0), of_token[text.ids], np.where(matched, of_rule, 0)])
    return Described(site, unit, said, own, own_dev, matched_dev, matched)


def with_other(described: list[Described]) -> list[Described]:
    """With the rule of another unit as a fourth description: of the one of its site whose rule matches most nearly as
    often on dev, at the value that the unit has there on dev. What a rule of that density says of any unit."""
    found = []
    for one in described:
        others = [other for other in described if other.site == one.site and other is not one] or [
            other for other in described if other is not one
        ]
        other = min(others, key=lambda each: abs(int(each.matched_dev.sum()) - int(one.matched_dev.sum())))
        usual = one.value_dev[other.matched_dev].mean() if other.matched_dev.any() else 0.0
        found.append(replace(one, said=np.vstack([one.said, np.where(other.matched, usual, 0)])))
    return found


@dataclass(frozen=True)
class Contexts:
    """Of all units: place of the unit, token, and of how many tokens each stands, for every description, `[contexts]`
    and `[contexts, descriptions]`."""

    unit: np.ndarray
    token: np.ndarray
    weight: np.ndarray


def contexts(described: list[Described], each: int, rng: np.random.Generator) -> Contexts:
    """`each` tokens of every unit on which it fires, and for every description half as many on which it does not and
    the description says so."""
    columns: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for place, one in enumerate(described):
        n = len(one.said)
        groups = [(np.flatnonzero(one.value), each, np.ones(n))]
        for number, said in enumerate(one.said):
            groups.append((np.flatnonzero((one.value == 0) & (said != 0)), -(-each // 2), np.eye(n)[number]))
        for tokens, wanted, of in groups:
            drawn = np.sort(rng.choice(tokens, min(wanted, len(tokens)), replace=False))
            weight = np.tile(of * (len(tokens) / max(1, len(drawn))), (len(drawn), 1))
            columns.append((np.full(len(drawn), place), drawn, weight))
    unit, token, weight = (np.concatenate(column) for column in zip(*columns, strict=True))
    return Contexts(unit, token, weight)


@torch.no_grad()
def survives(system: System, split: PackedSplit, described: list[Described], found: Contexts) -> np.ndarray:
    """Of every unit and description, the share of the unit's effect on the logits that is left: 1 − Σ‖said − own‖² /
    Σ‖own‖², both less their mean over the vocabulary and than the unit off, over all tokens that contexts stand for; −1
    at least. Saying nothing gives 0; nothing is cut there, or luck would count and bad luck would not. `[units,
    descriptions]`"""
    sums = np.zeros((len(described), 1 + len(DESCRIPTIONS)))
    for chunk in chunks(system, split, found.token, variants=2 + len(DESCRIPTIONS)):
        of = [described[place] for place in found.unit[chunk.which]]
        tokens = found.token[chunk.which]
        off = _set(chunk, of, np.zeros(len(of)))
        own = _set(chunk, of, np.array([one.value[token] for one, token in zip(of, tokens, strict=True)])) - off
        squares = [own.square().sum(-1)]  # 0 where the unit does not fire
        for place in range(len(DESCRIPTIONS)):
            said = np.array([one.said[place, token] for one, token in zip(of, tokens, strict=True)])
            squares.append((_set(chunk, of, said) - off - own).square().sum(-1))
        weight = found.weight[chunk.which]
        weighted = torch.stack(squares, 1).cpu().numpy() * np.concatenate([weight[:, :1], weight], 1)
        np.add.at(sums, found.unit[chunk.which], weighted)
    own = sums[:, :1]
    return np.maximum(-1, 1 - np.divide(sums[:, 1:], own, out=np.ones((len(own), len(DESCRIPTIONS))), where=own > 0))


def _set(chunk: Chunk, of: list[Described], values: np.ndarray) -> Tensor:
    """Logits `[n, vocabulary]` less their mean with each context's unit at a value."""
    device = chunk.positions.device
    edits: Mapping[Site, Entries] = {
        site: Entries(
            torch.tensor(rows, device=device),
            torch.tensor([of[row].unit for row in rows], device=device),
            torch.as_tensor(values[rows], dtype=torch.float32, device=device),
        )
        for site in dict.fromkeys(one.site for one in of)
        for rows in [[row for row, one in enumerate(of) if one.site == site]]
    }
    z = chunk.prefix.logits(chunk.positions, edits).double()
    return z - z.mean(-1, keepdim=True)


def _values(fired: Fired, unit: int) -> np.ndarray:
    """`[tokens]`, 0 where the unit is silent."""
    found = np.zeros(fired.n_tokens)
    mine_ = fired.unit == unit
    found[fired.token[mine_]] = fired.value[mine_]
    return found
