"""Effects that are known: a unit nobody listens to, one that is overwritten, one that is passed on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from harness.metrics.faithfulness.predicted import Agreement, effects, turned_about
from harness.metrics.faithfulness.sampling import draw
from harness.metrics.joint.pairs import Fired
from harness.systems.system import System

from .conftest import Split, axis, silent, system, unit


def fired(of: System, split: Split) -> dict:
    found = {}
    for site, encoded in of.encode(split.all.input_ids).items():
        codes = encoded.codes
        token, units = codes.token_of_entry().numpy(), codes.units.numpy()
        found[site] = Fired(token, units, codes.values.numpy(), encoded.strengths.numpy(), codes.n_tokens,
                            codes.n_tokens, codes.n_units)  # fmt: skip
    return found


def agreement(of: System, contexts: int = 8) -> Agreement:
    split = Split(0)
    sample = draw(fired(of, split), 4, contexts, np.random.default_rng(0))
    assert sample.units
    return effects(of, split, sample, np.random.default_rng(1)).units  # pyright: ignore


def test_what_a_small_unit_writes_to_the_end_is_its_whole_effect() -> None:
    model = silent(layers=1, units=2)
    unit(model, 0, 0, axis(1), axis(6, 0.01))
    found = agreement(system(model))
    assert found.correlation() == pytest.approx(1, abs=1e-4)
    assert found.explained() == pytest.approx(1, abs=1e-3)


def test_a_unit_whose_write_is_taken_back_later_does_nothing() -> None:
    model = silent(layers=2, units=2)
    unit(model, 0, 0, axis(1), axis(6, 0.5))
    x = torch.tensor([[1, 1, 1]])
    with torch.no_grad():
        read: list[torch.Tensor] = []
        handle = model.feed_forwards()[1].register_forward_pre_hook(lambda _m, args: read.append(args[0]))
        model(x, use_cache=False)
        handle.remove()
        first = system(model).encode(x)
        written = next(iter(first.values())).codes.values[0] * 0.5
    unit(model, 1, 0, axis(6), axis(6, float(-written / read[0][0, 0, 6])))
    of = system(model)
    split = Split(0)
    sample = draw({site: one for site, one in fired(of, split).items() if site.layer == 0}, 1, 8,
                  np.random.default_rng(0))  # fmt: skip
    found = effects(of, split, sample, np.random.default_rng(1)).units  # pyright: ignore
    assert found.mm[0] < 1e-6 * found.pp[0]
    assert found.explained()[0] == -1


def test_the_share_through_what_no_unit_owns_is_nothing_where_there_is_nothing(tokens: torch.Tensor) -> None:
    model = silent(layers=2, units=2)
    unit(model, 0, 0, axis(1), axis(6, 0.5))
    unit(model, 1, 0, axis(6), axis(7, 1.0))
    of, split = system(model), Split(0)
    sample = draw(fired(of, split), 2, 8, np.random.default_rng(0))
    held = effects(of, split, sample, np.random.default_rng(1)).through_units  # pyright: ignore
    assert held.pm == pytest.approx(held.mm)


def test_agreement_by_hand() -> None:
    one = Agreement(np.array([4.0, 1.0, 0.0]), np.array([1.0, 1.0, 0.0]), np.array([2.0, 0.0, 0.0]))
    assert one.correlation().tolist() == [1, 0, 0]
    assert one.explained().tolist() == [0, -1, -1]  # twice too much leaves as much as it takes


def test_the_control_is_as_long_and_as_far_along_the_residual() -> None:
    residual, written, drawn = torch.randn(3, 5, 16, generator=torch.Generator().manual_seed(0))
    found = turned_about(residual, written, drawn)
    torch.testing.assert_close(found.norm(dim=1), written.norm(dim=1))
    torch.testing.assert_close((found * residual).sum(1), (written * residual).sum(1))
    assert (torch.cosine_similarity(found, written) < 0.9).all()
