"""What is collected of a subject, and how much of it is run for that."""

from collections.abc import Callable

import datasets
import numpy as np
import pytest
import torch

import models
from harness.corpus import PackedSplit
from harness.systems.collecting import collect, native_run
from harness.systems.system import Point, Site


def split_of(tokens: torch.Tensor) -> PackedSplit:
    column = tokens.numpy().astype(np.int32).tolist()
    columns = dict.fromkeys(("input_ids", "document", "domain", "n_bytes", "ply"), column)
    return PackedSplit(datasets.Dataset.from_dict(columns).with_format("numpy"), tokens.shape[1])


@pytest.mark.parametrize("point", ["mlp", "mlp_out", "resid_post"])
def test_what_comes_after_the_last_site_is_not_run_and_changes_nothing(
    make_subject: Callable[..., models.TrunkForCausalLM], tokens: torch.Tensor, point: Point
) -> None:
    model, indices, split = make_subject("dense"), torch.arange(len(tokens)), split_of(tokens)
    entered: list[int] = []
    for layer, block in enumerate(model.blocks()):
        block.register_forward_pre_hook(lambda *_, layer=layer: entered.append(layer))
    sites = [Site(0, point)]
    found = collect(model, split, indices, sites)
    assert entered == [0]
    whole, _ = native_run(model, split.batch(indices), indices, sites)
    assert entered == [0, 0, 1]
    torch.testing.assert_close(found.rows, whole.rows)
    torch.testing.assert_close(found.sites[sites[0]], whole.sites[sites[0]], rtol=0, atol=0)
