from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from harness.metrics.joint import readout
from harness.metrics.joint.readout import Additive, Machine, TokenFeatures

OUTCOMES, UNITS = 6, 12


def as_codes(values: np.ndarray, *known: np.ndarray) -> TokenFeatures:
    token, unit = values.nonzero()
    indptr = np.concatenate([[0], (values != 0).sum(1).cumsum()])
    return TokenFeatures(
        torch.from_numpy(indptr),
        torch.from_numpy(unit),
        torch.from_numpy(values[token, unit].astype(np.float32)),
        values.shape[1],
        tuple(torch.from_numpy(part) for part in known),
        tuple(int(part.max()) + 1 for part in known),
    )


def world(tokens: int, seed: int, *, together: float = 0.0) -> tuple[np.ndarray, torch.Tensor]:
    """Values of units, and outcomes to which each adds its own; `together`: what units 0 and 1 add when both fire."""
    rng, fixed = np.random.default_rng(seed), np.random.default_rng(99)
    values = (rng.random((tokens, UNITS)) < np.r_[0.5, 0.5, np.full(UNITS - 2, 0.15)]) * rng.uniform(
        0.5, 1.5, (tokens, UNITS)
    )
    z = values @ fixed.standard_normal((UNITS, OUTCOMES)) * 0.7
    z = z + together * ((values[:, 0] > 0) & (values[:, 1] > 0))[:, None] * fixed.standard_normal(OUTCOMES)
    return values, torch.from_numpy((z + rng.gumbel(size=z.shape)).argmax(1))


def gained(**planted: float) -> readout.Gain:
    values, y = world(6000, 1, **planted)
    there, there_y = world(4000, 2, **planted)
    return readout.gain(
        as_codes(values), y, torch.arange(6000) % 3 == 0, as_codes(there), there_y,
        outcomes=OUTCOMES, rank=4, epochs=25, generator=torch.Generator().manual_seed(0),
    )  # fmt: skip


def test_the_machine_is_the_sum_over_pairs() -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((7, UNITS)) * (rng.random((7, UNITS)) < 0.4)
    values[3] = 0
    domain = rng.integers(0, 3, 7)
    additive = Additive(UNITS, (3,), OUTCOMES)
    for parameter in additive.parameters():
        torch.nn.init.normal_(parameter)
    machine = Machine(additive, 4, torch.Generator().manual_seed(0))
    codes = as_codes(values, domain)
    torch.testing.assert_close(machine(codes), additive(codes))  # before anything is learned
    torch.nn.init.normal_(machine.q)
    a = torch.from_numpy(values).float()
    expected = additive.bias + (a != 0).float() @ additive.fires + a @ additive.value + additive.known[0][domain]
    for i in range(UNITS):
        for j in range(i):
            expected = expected + (a[:, i] * a[:, j])[:, None] * (machine.u[i] * machine.u[j]) @ machine.q
    torch.testing.assert_close(machine(codes), expected, rtol=1e-4, atol=1e-4)


def test_tokens_are_taken_in_the_order_asked_for() -> None:
    values = np.arange(20.0).reshape(5, 4) * (np.arange(5) != 2)[:, None]
    domain = np.arange(5)
    some = as_codes(values, domain).at(torch.tensor([4, 2, 0]))
    again = as_codes(values[[4, 2, 0]], domain[[4, 2, 0]])
    for name in ("indptr", "units", "values"):
        assert torch.equal(getattr(some, name), getattr(again, name))
    assert torch.equal(some.known[0], again.known[0])


def test_several_questions_a_token_are_read_side_by_side_and_averaged() -> None:
    values, first = world(3000, 1, together=3.0)
    _, second = world(3000, 4)  # nothing that these codes know of
    codes, held_out = as_codes(values), torch.arange(3000) % 3 == 0

    def of(y: torch.Tensor) -> readout.Gain:
        generator = torch.Generator().manual_seed(0)
        return readout.gain(
            codes, y, held_out, codes, y, outcomes=OUTCOMES, rank=4, epochs=25, generator=generator
        )  # fmt: skip

    both, known, unknown = of(torch.stack([first, second], 1)), of(first), of(second)
    np.testing.assert_allclose(both.nothing, (known.nothing + unknown.nothing) / 2, rtol=1e-5)
    assert both.additive.mean() == pytest.approx((known.additive.mean() + unknown.additive.mean()) / 2, abs=0.02)
    assert known.gain.mean() > 0.02
    assert both.gain.mean() == pytest.approx(known.gain.mean() / 2, rel=0.5)


def test_products_gain_nothing_where_units_add_up_and_what_was_planted_where_they_do_not() -> None:
    nothing = gained()
    assert nothing.additive.mean() < nothing.nothing.mean() - 0.1
    assert abs(nothing.gain.mean()) < 0.01
    planted = gained(together=2.0)
    # What a readout that is given the conjunction as one more unit saves is all there is to gain.
    values, y = world(6000, 1, together=2.0)
    there, there_y = world(4000, 2, together=2.0)
    given = [np.c_[part, (part[:, 0] > 0) & (part[:, 1] > 0)] for part in (values, there)]
    known = readout.additive_readout(
        as_codes(given[0]), y, torch.arange(6000) % 3 == 0, outcomes=OUTCOMES, epochs=25,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    most = planted.additive.mean() - readout.bits(known, as_codes(given[1]), there_y).mean()
    assert 0.6 * most < planted.gain.mean() < 1.1 * most
    assert most > 0.03


def test_bits_of_the_frequencies_are_the_entropy_and_held_out_tokens_are_not_trained_on() -> None:
    additive = Additive(UNITS, (), 2)
    values = np.zeros((8, UNITS))
    assert readout.bits(additive, as_codes(values), torch.arange(8) % 2).tolist() == pytest.approx([1.0] * 8)
    # Held-out tokens say the opposite of the others, so the state that came in predicts them best and is kept.
    values[:, 0] = 1
    y = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    readout.fit(additive, as_codes(values), y, y == 1, 5, torch.Generator())
    assert not additive.fires.any()
    with pytest.raises(ValueError, match="held out"):
        readout.gain(
            as_codes(values), y, y < 0, as_codes(values), y, outcomes=2, rank=1, epochs=1, generator=torch.Generator()
        )


def test_what_is_known_takes_the_place_of_units() -> None:
    values, y = world(3000, 3)
    codes = as_codes(values, y.numpy())  # the outcome itself is known
    held_out = torch.arange(3000) % 3 == 0
    generator = torch.Generator().manual_seed(0)
    given = readout.additive_readout(codes, y, held_out, outcomes=OUTCOMES, epochs=10, generator=generator)
    without = replace(codes, known=(), classes=())
    blind = readout.additive_readout(without, y, held_out, outcomes=OUTCOMES, epochs=10, generator=generator)
    assert readout.bits(given, codes, y).mean() < readout.bits(blind, without, y).mean() - 0.5
