import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from harness.metrics import kept, loss
from harness.systems.evaluation import Evaluation
from harness.systems.system import Encoded, Site, System

from ..conftest import grafted, subject
from .test_loss import evaluation as evaluation_of


def evaluation(system: System) -> Evaluation:
    made = evaluation_of(system)
    encoded = system.encode(made.split.batch(torch.arange(4)).input_ids)

    def load(site: Site) -> Encoded:
        return encoded[site]

    return replace(made, load_codes=load)


def figures(system: System, **options: float) -> dict[str, float]:
    return {m.name: m.value for m in kept.measure(evaluation(system), kept.Options(**options))}  # pyright: ignore


@pytest.mark.parametrize("name", ["dense-relu", "dense", "peer", "pools"])
def test_all_units_are_the_spliced_model_and_the_largest_k_is_all_of_them(name: str) -> None:
    system = System(name, subject(name, torch.float32), None)
    found = figures(system)
    spliced = {m.name: m.value for m in loss.measure(evaluation(system), loss.Options())}["loss/spliced_bits_per_byte"]
    assert found["kept/bits_per_byte_all"] == pytest.approx(spliced, rel=1e-6)
    largest = max(int(key.rsplit("k", 1)[1]) for key in found if key.startswith("kept/bits_per_byte_k"))
    assert found[f"kept/bits_per_byte_k{largest}"] == pytest.approx(spliced, rel=1e-6)
    assert abs(found["kept/bits_per_byte_k1"] - spliced) > 1e-6
    assert found["kept/l0"] == pytest.approx(found["kept/l0_of_units"], rel=1e-3)  # its units are the model


def test_a_random_rotation_of_neurons_needs_more_of_them_and_all_of_them_are_the_model() -> None:
    model = subject("dense-relu", torch.float32)
    for layer in model.feed_forwards():  # few neurons write much: a basis of their own
        layer.w_out.weight.data[:, 4:] *= 0.02  # pyright: ignore
    found = figures(System("dense-relu", model, None), margin=1e-5)
    rotated = sorted(
        (int(key.rsplit("k", 1)[1]), value) for key, value in found.items() if "rotated_bits_per_byte" in key
    )
    assert found["kept/l0"] < found["kept_controls/rotated_l0"]
    assert rotated[-1][1] == pytest.approx(found["kept/bits_per_byte_all"], rel=1e-5)


def test_monets_parts_are_kept_or_dropped_with_all_their_experts() -> None:
    model = subject("monet-hd", torch.float32)
    system = System("monet-hd", model, None)
    site, layer = system.sites[0], model.feed_forwards()[0]
    ids = evaluation(system).split.batch(torch.arange(2)).input_ids
    seen = {}

    def look(codes, x):
        seen["codes"], seen["kept"] = codes, kept._components(system, site, 3, codes, x)
        return codes

    with system.tapped({site: look}, error="drop", rest="keep"), torch.no_grad():
        model(ids)
    n = layer.n
    for token in range(seen["codes"].n_tokens):
        here = slice(int(seen["kept"].indptr[token]), int(seen["kept"].indptr[token + 1]))
        units = seen["kept"].units[here]
        first, second = set((units // n).tolist()), set((units % n).tolist())
        assert len(first) + len(second) <= 3
        assert len(units) <= len(first) * len(second)
    found = figures(system)
    assert "kept_controls/components_l0" in found
    assert "kept_controls/rotated_l0" not in found


def test_neurons_that_belong_to_no_unit_are_in_the_l0() -> None:
    system = System("pools", subject("pools", torch.float32), None)
    rest = system.rest_neurons(system.sites[0])
    assert rest > 0
    assert figures(system)["kept/l0"] >= rest + 1


def test_a_dictionary_that_never_comes_near_the_model_says_by_how_much() -> None:
    system = grafted("topk", dtype=torch.float32)
    found = kept.measure(evaluation(system), kept.Options(margin=1e-4))
    by_name = {m.name: m for m in found}
    assert math.isnan(by_name["kept/l0"].value)
    assert "bits per byte, more than 0.0001" in str(by_name["kept/l0"].reason)
    assert 1 <= by_name["kept/l0_of_units"].value <= 8


def test_units_that_write_nothing_are_not_needed() -> None:
    """Half of the neurons write nothing: the other half is enough, whatever the silent half's activations are."""
    model = subject("dense-relu", torch.float32)
    system = System("dense-relu", model, None)
    before = figures(system, margin=1e-6)["kept/l0"]
    for layer in model.feed_forwards():
        layer.w_out.weight.data[:, 3:] = 0  # pyright: ignore
    after = figures(system, margin=1e-6)["kept/l0"]
    assert after <= 4 < before  # three write; they are found between 2 and 4


@pytest.mark.parametrize(
    ("losses", "bound", "k"),
    [
        ([3.0, 2.0, 1.0], 3.5, 1.0),
        ([3.0, 2.0, 1.0], 2.0, 2.0),
        ([3.0, 2.0, 1.0], 1.5, 2**1.5),
        ([3.0, 2.0, 1.0], 0.5, math.nan),
        ([1.0, 3.0, 1.0], 2.0, 2**1.5),  # the dip at k = 1 is luck
    ],
)
def test_the_crossing_is_the_least_k_from_which_on_the_loss_stays_below(losses, bound: float, k: float) -> None:
    assert kept.crossing([1, 2, 4], np.array(losses), bound) == pytest.approx(k, nan_ok=True)
