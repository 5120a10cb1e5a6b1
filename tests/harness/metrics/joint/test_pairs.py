import numpy as np
import pytest
import torch

from harness.metrics.joint.pairs import Chosen, Fired, Stratum, choose, coactivations, shuffled, strata, strongest
from harness.systems.system import Encoded, Site
from kernels.codes import Codes

SITE, NEXT = Site(0, "mlp_out"), Site(1, "mlp_out")


def fired(dense: np.ndarray) -> Fired:
    token, unit = dense.nonzero()
    value = dense[token, unit].astype(np.float32)
    return Fired(token, unit, value, np.abs(value), len(dense), *dense.shape)


def random(seed: int, tokens: int = 300, units: int = 9, share: float = 0.4) -> Fired:
    rng = np.random.default_rng(seed)
    return fired(np.where(rng.random((tokens, units)) < share, rng.normal(1, 0.2, (tokens, units)), 0))


@pytest.mark.parametrize("share", [0.05, 0.9])
def test_what_fires_is_the_strongest_of_a_token_however_dense_the_codes(share: float) -> None:
    generator = torch.Generator().manual_seed(0)
    dense = torch.randn(40, 30, generator=generator) * (torch.rand(40, 30, generator=generator) < share)
    codes = Codes.from_dense(dense, torch.zeros(40, 2, dtype=torch.long))
    sizes = torch.rand(30, generator=generator)
    strengths = codes.values.abs() * sizes[codes.units]
    token, unit, value, strength = strongest(Encoded(codes, strengths), 4)
    for row in range(40):
        here = token == row
        expected = (dense[row].abs() * sizes).topk(4)
        kept = expected.values > 0
        assert set(unit[here]) == set(expected.indices[kept].tolist())
        np.testing.assert_allclose(value[here], dense[row].numpy()[unit[here]])
        np.testing.assert_allclose(strength[here], (dense[row].abs() * sizes).numpy()[unit[here]], rtol=1e-6)


def test_coactivations_are_those_of_the_dense_product_each_pair_once_within_a_site() -> None:
    a, b = random(0), random(1, units=7)
    dense = [np.zeros((f.n_tokens, f.n_units), int) for f in (a, b)]
    for table, of in zip(dense, (a, b), strict=True):
        table[of.token, of.unit] = 1
    first, second, counts = coactivations(a, b, within=False)
    assert (dense[0].T @ dense[1])[first, second].tolist() == counts.tolist()
    assert len(counts) == 63
    first, second, counts = coactivations(a, a, within=True)
    assert (first < second).all()
    assert len(counts) == 36
    assert (dense[0].T @ dense[0])[first, second].tolist() == counts.tolist()


@pytest.mark.parametrize("stratum", [Stratum(SITE, SITE), Stratum(SITE, NEXT)])
def test_every_pair_gets_exactly_its_contexts_in_which_both_fire(stratum: Stratum) -> None:
    dev, test = ({SITE: random(s), NEXT: random(s + 1, units=7)} for s in (0, 2))
    found = choose(stratum, dev, test, pairs=12, contexts=30, first_pair=5, rng=np.random.default_rng(0))
    assert found.units.shape == (12, 2)
    assert len({tuple(pair) for pair in found.units}) == 12
    assert np.bincount(found.contexts.pair, minlength=17).tolist() == [0] * 5 + [30] * 12
    for side, site in enumerate((stratum.a, stratum.b)):
        of = test[site]
        values = {(t, u): v for t, u, v in zip(of.token, of.unit, of.value, strict=True)}
        got = (found.contexts.value_a, found.contexts.value_b)[side]
        units = found.units[found.contexts.pair - 5, side]
        assert [values[key] for key in zip(found.contexts.token, units, strict=True)] == got.tolist()
    for pair in range(5, 17):
        assert len(set(found.contexts.token[found.contexts.pair == pair])) == 30
    assert 0.9 < found.testable <= 1


def test_pairs_are_drawn_in_proportion_to_how_often_they_fire_together_on_dev() -> None:
    dense = np.zeros((800, 4))
    dense[:600, :2] = 1  # (0, 1) 600 times
    dense[600:, 2:] = 1  # (2, 3) 200 times
    both = {SITE: fired(dense)}

    def draw(seed: int, pairs: int, contexts: int) -> Chosen:
        rng = np.random.default_rng(seed)
        return choose(Stratum(SITE, SITE), both, both, pairs=pairs, contexts=contexts, first_pair=0, rng=rng)

    drawn = [tuple(draw(seed, 1, 5).units[0]) for seed in range(400)]
    assert 0.68 < drawn.count((0, 1)) / 400 < 0.82
    few = draw(0, 2, 300)
    assert few.units.tolist() == [[0, 1]]
    assert few.testable == 0.75
    assert few.best == 600


def test_shuffling_keeps_where_a_fires_and_takes_the_values_of_b_from_anywhere() -> None:
    both = {SITE: random(3)}
    chosen = choose(Stratum(SITE, SITE), both, both, pairs=3, contexts=20, first_pair=0, rng=np.random.default_rng(0))
    found = shuffled(chosen, both, 50, np.random.default_rng(1))
    assert np.bincount(found.pair).tolist() == [50, 50, 50]
    of = both[SITE]
    for pair, (a, b) in enumerate(chosen.units):
        here = found.pair == pair
        assert set(found.token[here]) <= set(of.token[of.unit == a])
        assert set(found.value_b[here]) <= set(of.value[of.unit == b])
        assert not set(found.token[here]) <= set(of.token[of.unit == b])


def test_strata_are_each_site_with_itself_and_with_the_next() -> None:
    assert strata((SITE, NEXT)) == [Stratum(SITE, SITE), Stratum(NEXT, NEXT), Stratum(SITE, NEXT)]
