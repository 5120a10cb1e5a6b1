"""Taking a unit away against taking away as much of a random direction."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch

import models
from harness.metrics.autointerp.ablation import log_ratios
from harness.metrics.autointerp.firings import Firings
from harness.systems.system import System


def test_a_unit_that_writes_where_the_head_reads_does_more_and_one_that_writes_beside_it_less() -> None:
    torch.manual_seed(0)
    model: Any = models.build(
        "dense-relu", d_model=16, n_layers=1, n_heads=2, d_ff=12, vocab_size=30, tie_word_embeddings=False
    ).eval()
    layer = model.feed_forwards()[0]
    with torch.no_grad():
        model.lm_head.weight.mul_(20)
        model.lm_head.weight[:, 8:] = 0  # the head reads 8 of 16 directions
        layer.w_in.weight.copy_(torch.randn(12, 16))
        layer.w_out.weight.zero_()
        layer.w_out.weight[torch.arange(8), torch.arange(8)] = 1.0  # units 0 to 7 write where it reads
        layer.w_out.weight[8 + torch.arange(4), 8 + torch.arange(4)] = 1.0  # units 8 to 11 beside it
    ids = torch.randint(30, (6, 20))
    split = SimpleNamespace(length=20, batch=lambda rows: SimpleNamespace(input_ids=ids[rows]))
    system = System("dense", model, None)
    encoded = system.encode(ids)[system.sites[0]]
    firings = Firings.of(str(system.sites[0]), encoded, 12)
    units = [cast(Any, SimpleNamespace(firings=firings, column=c)) for c in range(len(firings.units))]
    found = log_ratios(units, cast(Any, SimpleNamespace(split=split, system=system)), seed=0)
    read = firings.units < 8
    assert np.median(found[read]) > 0.3  # a random direction wastes half of itself
    assert np.max(found[~read]) < np.min(found[read])
    again = log_ratios(units, cast(Any, SimpleNamespace(split=split, system=system)), seed=0)
    assert np.array_equal(found, again)
