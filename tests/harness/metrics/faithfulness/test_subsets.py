"""Units that cancel: nobody misses both, and everybody misses one."""

from __future__ import annotations

import pytest
import torch

from harness.metrics.faithfulness import subsets
from harness.metrics.faithfulness.subsets import Native

from .conftest import Split, axis, silent, system, unit


def pair(second: float) -> tuple:
    """Two units that fire on words 0 to 2 and write to one place, the second `second` times as much."""
    model = silent(layers=1, units=2)
    reads = axis(0) + axis(1) + axis(2)
    unit(model, 0, 0, reads, axis(6, 0.3))
    unit(model, 0, 1, reads, axis(6, 0.3 * second))
    of = system(model)
    batch = Split(0).all
    return of, batch, Native.of(of, batch)


def mean(of, batch, native, masks) -> float:
    with torch.no_grad():
        return float(subsets.losses(of, batch, native, masks).mean())


def test_units_that_cancel_are_not_missed_together_and_are_missed_apart() -> None:
    of, batch, native = pair(-1.0)
    everything = native.everything(torch.device("cpu"))
    none = {site: torch.zeros_like(mask) for site, mask in everything.items()}
    full = mean(of, batch, native, everything)
    assert mean(of, batch, native, none) == pytest.approx(full, abs=1e-6)
    generator = torch.Generator().manual_seed(0)
    helps = subsets.helps(of, batch, native)
    with torch.enable_grad():
        worst = subsets.chosen_against(of, batch, native, 0.5, helps, generator)
    alone = []
    for which in (0, 1):  # of every token that has both, the one or the other
        masks = {site: (torch.arange(len(mask)) % 2 == which).float() for site, mask in everything.items()}
        with torch.no_grad():
            alone.append(subsets.losses(of, batch, native, masks))
    most = float(torch.maximum(*alone).mean())
    assert most > full + 0.02
    assert float(worst.mean()) > full + 0.9 * (most - full)


def test_all_units_kept_is_the_native_model() -> None:
    of, batch, native = pair(0.5)
    with torch.no_grad():
        logits = of.model(batch.input_ids, use_cache=False).logits[:, :-1]
        targets = batch.input_ids[:, 1:].reshape(-1)
        expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets, reduction="none")
        found = subsets.losses(of, batch, native, native.everything(torch.device("cpu")))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 1.0])
def test_a_token_keeps_its_share_of_the_largest(share: float) -> None:
    _, _, native = pair(0.5)
    order = {
        site: torch.rand(len(keys), generator=torch.Generator().manual_seed(1)) for site, keys in native.keys.items()
    }
    masks = subsets.kept(order, native, lambda lengths: share * lengths, torch.Generator().manual_seed(0))
    for site, mask in masks.items():
        lengths = native.lengths[site]
        token = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
        kept = torch.zeros(len(lengths)).index_add(0, token, mask)
        assert ((kept - share * lengths).abs() < 1).all()
        assert float(kept.sum()) == pytest.approx(share * float(lengths.sum()), abs=12)
        for t in range(len(lengths)):
            mine = token == t
            if 0 < kept[t] < lengths[t]:
                assert order[site][mine][mask[mine] == 1].min() > order[site][mine][mask[mine] == 0].max()


def test_what_helps_is_the_first_order_loss_of_what_the_model_says() -> None:
    of, batch, native = pair(0.5)
    with torch.no_grad():
        said = of.model(batch.input_ids, use_cache=False).logits[:, :-1].argmax(-1).reshape(-1)
    helps = subsets.helps(of, batch, native)
    site = of.sites[0]
    step = 1e-2
    for entry in (0, 3):
        masks = native.everything(torch.device("cpu"))
        masks[site][entry] -= step
        with torch.no_grad():
            without = subsets.losses(of, batch, native, masks, said).sum()
            full = subsets.losses(of, batch, native, native.everything(torch.device("cpu")), said).sum()
        assert float((without - full) / step) == pytest.approx(float(helps[site][entry]), rel=0.05, abs=1e-3)
