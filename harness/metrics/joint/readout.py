"""How much a system says in combinations: what a readout with products of units knows beyond one without, held out.

Both readouts give log-odds of outcomes (the next token, the domain, who holds a square) from codes. The additive one
has, for every unit, a vector for firing and one times its value. The factorisation machine (Rendle, 2010) adds, of all
pairs at once and without listing them,

    Σ_{i<j} aᵢ aⱼ (uᵢ ⊙ uⱼ) Q = ½ [(Σᵢ aᵢ uᵢ)² − Σᵢ (aᵢ uᵢ)²] Q,    uᵢ `[rank]`, Q `[rank, outcomes]`

It starts from the fitted additive one, which has full rank, so the gain is neither capacity for units alone nor counts
one meaning once for every pair that carries it. Both stop when held-out documents of dev get no better. Observational:
a noisy common cause reads better from products too, so gains are compared between systems and with shuffled codes.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

_BATCH = 512  # tokens
_PATIENCE = 3  # epochs without gain
_STEP = 0.01
_DECAY = 1e-2


@dataclass(frozen=True)
class TokenFeatures:
    """Units on tokens, of all sites together: indptr `[tokens + 1]`, units and values `[entries]`, values in units of
    what is usual for the unit. known: further things the additive part may use, each `[tokens]` (current token,
    domain); classes: how many there are of each."""

    indptr: Tensor
    units: Tensor
    values: Tensor
    n_units: int
    known: tuple[Tensor, ...] = ()
    classes: tuple[int, ...] = ()

    @property
    def n_tokens(self) -> int:
        return len(self.indptr) - 1

    def at(self, tokens: Tensor) -> TokenFeatures:
        """Only these tokens, in this order."""
        lengths = self.indptr.diff()[tokens]
        indptr = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        entry = torch.arange(int(indptr[-1])) + (self.indptr[tokens] - indptr[:-1]).repeat_interleave(lengths)
        known = tuple(part[tokens] for part in self.known)
        return TokenFeatures(indptr, self.units[entry], self.values[entry], self.n_units, known, self.classes)


class Additive(nn.Module):
    """Log-odds from units and what is known, one after the other. Zero at the start but for `bias`."""

    def __init__(self, n_units: int, known: tuple[int, ...], outcomes: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(outcomes))
        self.fires = nn.Parameter(torch.zeros(n_units, outcomes))
        self.value = nn.Parameter(torch.zeros(n_units, outcomes))
        self.known = nn.ParameterList(nn.Parameter(torch.zeros(classes, outcomes)) for classes in known)

    def forward(self, codes: TokenFeatures) -> Tensor:
        z = self.bias + F.embedding_bag(codes.units, self.fires, codes.indptr[:-1], mode="sum")
        z = z + _summed(codes, self.value, codes.values)
        for table, classes in zip(self.known, codes.known, strict=True):
            z = z + F.embedding(classes, table)
        return z


class Machine(nn.Module):
    """The additive readout, and products of units. Q starts at zero: at first it says what `additive` says."""

    def __init__(self, additive: Additive, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        self.additive = copy.deepcopy(additive)
        self.u = nn.Parameter(0.1 * torch.randn(len(additive.fires), rank, generator=generator))
        self.q = nn.Parameter(torch.zeros(rank, len(additive.bias)))

    def forward(self, codes: TokenFeatures) -> Tensor:
        together = _summed(codes, self.u, codes.values).square()
        alone = _summed(codes, self.u.square(), codes.values.square())
        return self.additive(codes) + 0.5 * (together - alone) @ self.q


def _summed(codes: TokenFeatures, table: Tensor, weights: Tensor) -> Tensor:
    return F.embedding_bag(codes.units, table, codes.indptr[:-1], mode="sum", per_sample_weights=weights)


def fit(
    model: nn.Module, codes: TokenFeatures, y: Tensor, held_out: Tensor, epochs: int, generator: torch.Generator
) -> None:
    """Trains `model` on the tokens that are not `held_out` `[tokens]` (boolean) and leaves it as it was when it
    predicted those best, the state it came in with included. y int64, `[tokens]` or `[tokens, questions]`: several
    things asked of every token, each with as many outcomes, whose log-odds stand one after the other."""
    train, test = (~held_out).nonzero()[:, 0], held_out.nonzero()[:, 0]
    check, check_y = codes.at(test), y[test]
    # Adam's first steps are as large for a rare unit as for a common one; decay takes back what nothing confirms.
    tables = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    biases = [parameter for parameter in model.parameters() if parameter.ndim == 1]
    groups = [{"params": tables, "weight_decay": _DECAY}, {"params": biases, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=_STEP)
    best, state, since = _mean_bits(model, check, check_y), copy.deepcopy(model.state_dict()), 0
    for _ in range(epochs):
        for tokens in train[torch.randperm(len(train), generator=generator)].split(_BATCH):
            loss = _nats(model(codes.at(tokens)), y[tokens]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        now = _mean_bits(model, check, check_y)
        since = 0 if now < best else since + 1
        if now < best:
            best, state = now, copy.deepcopy(model.state_dict())
        if since == _PATIENCE:
            break
    model.load_state_dict(state)


@torch.no_grad()
def bits(model: nn.Module, codes: TokenFeatures, y: Tensor) -> np.ndarray:
    """Cross entropy of every token, bits, the mean over its questions. `[tokens]` float64"""
    parts = torch.arange(codes.n_tokens).split(8 * _BATCH)
    found = [_nats(model(codes.at(part)), y[part]) for part in parts]
    return torch.cat([*found, torch.zeros(0)]).double().numpy() / np.log(2)


def _nats(z: Tensor, y: Tensor) -> Tensor:
    """Cross entropy of log-odds z `[tokens, questions · outcomes]`, the mean over questions. `[tokens]`"""
    if y.ndim == 1:
        return F.cross_entropy(z, y, reduction="none")
    return F.cross_entropy(z.unflatten(1, (y.shape[1], -1)).transpose(1, 2), y, reduction="none").mean(1)


def _mean_bits(model: nn.Module, codes: TokenFeatures, y: Tensor) -> float:
    return float(bits(model, codes, y).mean())


@dataclass(frozen=True)
class Gain:
    """Bits of every test token `[tokens]`: of the frequencies alone, of the additive readout, of that with products."""

    nothing: np.ndarray
    additive: np.ndarray
    products: np.ndarray

    @property
    def gain(self) -> np.ndarray:
        return self.additive - self.products


def gain(
    dev: TokenFeatures,
    dev_y: Tensor,
    held_out: Tensor,
    test: TokenFeatures,
    test_y: Tensor,
    *,
    outcomes: int,
    rank: int,
    epochs: int,
    generator: torch.Generator,
) -> Gain:
    """Fits both readouts on `dev` (stopping on its `held_out` tokens, whole documents) and reads `test` with them.

    dev_y, test_y as in `fit`; outcomes: of one question. Raises ValueError where no token is held out, or all are.
    """
    if bool(held_out.all()) or not bool(held_out.any()):
        raise ValueError(f"{int(held_out.sum())} of {len(held_out)} dev tokens are held out; some must be, and not all")
    additive = additive_readout(dev, dev_y, held_out, outcomes=outcomes, epochs=epochs, generator=generator)
    machine = Machine(additive, rank, generator)
    fit(machine, dev, dev_y, held_out, epochs, generator)
    fit(additive, dev, dev_y, held_out, epochs, generator)  # as long as the machine, or its units would gain by time
    nothing = _nats(_frequencies(dev_y[~held_out], outcomes).expand(len(test_y), -1), test_y)
    return Gain(nothing.double().numpy() / np.log(2), bits(additive, test, test_y), bits(machine, test, test_y))


def additive_readout(
    codes: TokenFeatures, y: Tensor, held_out: Tensor, *, outcomes: int, epochs: int, generator: torch.Generator
) -> Additive:
    """Fitted, starting from the outcomes' frequencies."""
    frequencies = _frequencies(y[~held_out], outcomes)
    additive = Additive(codes.n_units, codes.classes, len(frequencies))
    additive.bias.data = frequencies
    fit(additive, codes, y, held_out, epochs, generator)
    return additive


def _frequencies(y: Tensor, outcomes: int) -> Tensor:
    """Log-odds `[questions · outcomes]` that say how frequent outcomes are."""
    questions = y.reshape(len(y), -1).unbind(1)
    return torch.cat([(torch.bincount(column, minlength=outcomes) + 0.5).log().log_softmax(0) for column in questions])
