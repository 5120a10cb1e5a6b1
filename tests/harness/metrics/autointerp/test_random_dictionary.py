"""A dictionary of random directions that compete: as many fire on each token as of the system's own."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from harness.metrics.autointerp.collect import WantedContexts
from harness.metrics.autointerp.firings import Firings
from harness.metrics.autointerp.random_dictionary import paired, random_dictionary
from harness.metrics.autointerp.sampling import Drawn
from harness.systems.directions import competing
from harness.systems.system import Site

SITE = Site(0, "mlp_out")


def test_on_every_token_the_largest_projections_fire_as_many_as_asked_and_only_where_positive() -> None:
    y = torch.randn(5000, 6, generator=torch.Generator().manual_seed(0))
    directions = torch.randn(9, 6, generator=torch.Generator().manual_seed(1))
    counts = np.arange(5000) % 5
    codes = competing(y, directions, counts)
    projected = y @ directions.T
    lengths = codes.row_lengths()
    assert torch.equal(lengths, torch.minimum(torch.as_tensor(counts), (projected > 0).sum(1)))
    for token in (1, 4, 4096, 4999):
        here = slice(int(codes.indptr[token]), int(codes.indptr[token + 1]))
        expected = projected[token].topk(int(lengths[token])).indices
        assert set(codes.units[here].tolist()) == set(expected.tolist())


@pytest.fixture
def made(world):
    """A site that writes one-hot vectors of the tokens: a random direction is then a list of tokens."""
    n_pieces = int(world.ids.max()) + 1
    outputs = torch.nn.functional.one_hot(torch.as_tensor(world.ids), n_pieces).float()

    class Watched:
        def watching(self, watch: Any) -> Any:
            self.watch = watch
            return nullcontext()

        def model(self, _ids: Any, **_: Any) -> None:
            self.watch(SITE, None, outputs)

    evaluation = SimpleNamespace(
        system=Watched(), codes_sequences=len(world.ids), batches=lambda _n: [SimpleNamespace(input_ids=None)]
    )
    tokens = np.flatnonzero(world.fires("closing"))
    n = world.ids.size
    firings = Firings(str(SITE), 40, n, np.array([3]), np.array([0, len(tokens)]), tokens, np.ones(len(tokens)))
    return firings, random_dictionary(cast(Any, evaluation), {SITE: firings}, 32, seed=0)


def test_it_has_the_l0_of_the_system_on_every_token(world, made) -> None:
    own, dictionary = made
    found = dictionary.firings[str(SITE)]
    assert found.n_units == own.n_units
    of_own, of_random = (np.bincount(f.tokens, minlength=own.n_tokens) for f in (own, found))
    assert np.array_equal(of_own, of_random)
    assert dictionary.directions[str(SITE)].shape == (len(found.units), int(world.ids.max()) + 1)


def test_a_unit_is_paired_with_a_random_one_that_fires_about_as_often_and_none_is_used_twice(
    world, planted, wanted: WantedContexts, made
) -> None:
    own, dictionary = made
    unit = Drawn(planted("closing"), own, 0, 0, 1.0, 1.0)
    found = dictionary.firings[str(SITE)]
    contexts = paired([unit] * 5, dictionary, world.text(), wanted, 3, seed=0)
    there = [one for one in contexts if one is not None]
    assert there
    assert len({one.unit for one in there}) == len(there)
    nearest = found.units[np.argsort(np.abs(np.log(found.counts) - np.log(own.counts[0])), kind="stable")]
    assert there[0].unit in nearest[:8]
    assert all(one.near_misses for one in there)
    again = paired([unit] * 5, dictionary, world.text(), wanted, 3, seed=0)
    assert again == contexts


def test_signed_directions_compete_by_size_and_keep_their_sign() -> None:
    generator = torch.Generator().manual_seed(0)
    y, directions = torch.randn(40, 6, generator=generator), torch.randn(9, 6, generator=generator)
    codes = competing(y, directions, np.full(40, 3), signed=True)
    projected = y @ directions.T
    expected = torch.zeros_like(projected)
    top = projected.abs().topk(3, dim=1).indices
    expected.scatter_(1, top, projected.gather(1, top))
    torch.testing.assert_close(codes.dense(), expected)
    assert (codes.values < 0).any()
