"""The loss metric on a real tiny system and corpus."""

from __future__ import annotations

import math
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.corpus.stored import Batch
from harness.metrics import loss
from harness.systems.cost import Cost
from harness.systems.evaluation import Evaluation
from harness.systems.system import Encoded, Site, System

from ..conftest import grafted, subject


class Split:
    """Eight sequences of 24 tokens, two documents each, every token two bytes."""

    length = 24

    def __init__(self, seed: int) -> None:
        ids = torch.randint(0, 31, (8, 24), generator=torch.Generator().manual_seed(seed))
        document = 2 * torch.arange(8)[:, None] + (torch.arange(24) >= 10).long()
        self.all = Batch(ids, document, torch.zeros_like(ids), torch.full_like(ids, 2), torch.full_like(ids, -1))

    def __len__(self) -> int:
        return 8

    def batch(self, indices: torch.Tensor) -> Batch:
        return Batch(
            *(getattr(self.all, name)[indices] for name in ("input_ids", "document", "domain", "n_bytes", "ply"))
        )


def evaluation(system: System, batch_sequences: int = 3) -> Evaluation:
    def no_codes(_site: Site) -> Encoded:
        raise AssertionError("the loss needs no codes")

    return Evaluation(
        system=system,
        split=Split(0),  # pyright: ignore[reportArgumentType]
        dev=Split(1),  # pyright: ignore[reportArgumentType]
        sequences=8,
        codes_sequences=4,
        batch_sequences=batch_sequences,
        resamples=100,
        load_codes=no_codes,
        cost=Cost(1, 1, 1.0, 1.0, 1, 1.0, 1.0, 1),
        artifacts=Path(),
    )


def measured(system: System, **options: int) -> dict[str, float]:
    return {m.name: m.value for m in loss.measure(evaluation(system, **options), loss.Options())}


def test_cross_entropy_and_bits_per_byte_are_those_of_the_model() -> None:
    system = System("dense", subject("dense", torch.float32), None)
    found = measured(system)
    ids = Split(0).all.input_ids
    with torch.no_grad():
        log_p = system.model(ids).logits[:, :-1].log_softmax(-1)
    nats = -log_p.gather(2, ids[:, 1:, None]).sum().item()
    assert found["loss/cross_entropy"] == pytest.approx(nats / (8 * 23), rel=1e-6)
    assert found["loss/bits_per_byte"] == pytest.approx(nats / math.log(2) / (8 * 23 * 2), rel=1e-6)
    assert found["loss/perplexity"] == pytest.approx(math.exp(nats / (8 * 23)), rel=1e-6)


def test_what_is_lost_beyond_the_floor_is_counted_where_the_floor_can_be_reached() -> None:
    system = grafted("topk", dtype=torch.float32)
    least = -np.random.default_rng(0).random((8, 24))
    asked = evaluation(system)
    asked.floor = lambda sequences: least[:sequences]
    everywhere = {m.name: m for m in loss.measure(asked, loss.Options())}
    nats = -least[:, 1:].mean()
    assert everywhere["loss/above_floor"].saw == everywhere["loss/cross_entropy"].saw == "184 targets in 8 sequences"
    assert everywhere["loss/above_floor"].value == pytest.approx(
        (everywhere["loss/cross_entropy"].value - nats) / math.log(2), rel=1e-6
    )

    cut = least.copy()
    cut[2:5, :10] = np.nan  # as where a game began before the sequence
    asked.floor = lambda sequences: cut[:sequences]
    partly = {m.name: m for m in loss.measure(asked, loss.Options())}
    ids = Split(0).all.input_ids
    edits = dict.fromkeys(system.sites, lambda codes: codes)
    for name, running in (("", nullcontext()), ("spliced_", system.running(edits, error="drop"))):
        with torch.no_grad(), running:
            log_p = system.model(ids).logits[:, :-1].log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0].numpy()
        bits = np.nanmean(cut[:, 1:] - log_p) / math.log(2)
        assert partly[f"loss/{name}above_floor"].value == pytest.approx(bits, rel=1e-5)
    assert partly["loss/above_floor"].saw == (
        "157 of 184 targets in 8 sequences: those of documents that begin in their sequence"
    )
    assert partly["loss/cross_entropy"].value == everywhere["loss/cross_entropy"].value
    assert partly["loss/cross_entropy"].saw == everywhere["loss/cross_entropy"].saw


def test_the_figures_do_not_depend_on_the_batch_size_beyond_rounding() -> None:
    system = grafted("topk", dtype=torch.float32)
    one, many = measured(system, batch_sequences=1), measured(system, batch_sequences=8)
    for name, value in one.items():
        assert many[name] == pytest.approx(value, rel=1e-5), name


def test_a_native_system_splices_into_itself_and_its_units_are_all_it_has() -> None:
    found = measured(System("dense", subject("dense", torch.float32), None))
    native = found["loss/bits_per_byte"]
    assert found["loss/spliced_bits_per_byte"] == pytest.approx(native, rel=1e-5)
    assert found["loss/rest_zeroed_bits_per_byte"] == pytest.approx(native, rel=1e-5)
    assert found["loss/units_zeroed_bits_per_byte"] == pytest.approx(found["loss/zero_ablated_bits_per_byte"], rel=1e-5)
    assert abs(found["loss/units_zeroed_bits_per_byte"] - native) > 1e-3
    assert found["loss/carried"] == pytest.approx(1, abs=1e-4)
    assert math.isnan(found["loss/recovered"])  # by construction: its reason stands in the table
    assert math.isnan(found["loss/spliced_kl"])


def test_a_dictionary_that_reconstructs_nothing_recovers_nothing_and_a_perfect_one_everything() -> None:
    system = grafted("topk", dtype=torch.float32)
    for dictionary in system.decomposition.values():
        dictionary.W_dec.data.zero_()  # pyright: ignore
        dictionary.b_dec.data.zero_()  # pyright: ignore
    found = measured(system)
    assert found["loss/recovered"] == pytest.approx(0, abs=1e-6)
    # Writing nothing is worse than writing the mean, or better; either way nothing but the reference moved.
    ce = {name: found[f"loss/{name}_bits_per_byte"] for name in ("zero_ablated", "mean_ablated", "spliced")}
    whole = ce["mean_ablated"] - found["loss/bits_per_byte"]
    assert found["loss/recovered_mean"] == pytest.approx((ce["mean_ablated"] - ce["spliced"]) / whole, rel=1e-5)
    assert found["loss/spliced_bits_per_byte"] == pytest.approx(found["loss/zero_ablated_bits_per_byte"], rel=1e-6)

    class Perfect:
        """Reads nothing, and its rest is the activation itself."""

        n_units = 1

        def __init__(self, other: object) -> None:
            self.other = other

        def __getattr__(self, name: str) -> object:
            return getattr(self.other, name)

        def rest(self, x: torch.Tensor) -> torch.Tensor:
            return x

    perfect = {site: Perfect(dictionary) for site, dictionary in system.decomposition.items()}
    found = measured(System("perfect", system.model, perfect))  # pyright: ignore[reportArgumentType]
    assert found["loss/recovered"] == pytest.approx(1, abs=1e-5)
    assert found["loss/recovered_mean"] == pytest.approx(1, abs=1e-5)
    assert found["loss/spliced_kl"] == pytest.approx(0, abs=1e-6)


def test_mean_ablation_uses_the_mean_of_dev_and_not_of_eval() -> None:
    system = System("dense", subject("dense", torch.float32), None)
    means = loss._dev_means(evaluation(system))
    seen: dict[Site, list[torch.Tensor]] = {site: [] for site in system.sites}
    with torch.no_grad(), system.watching(lambda site, x, y: seen[site].append(y)):
        system.model(Split(1).all.input_ids)
    for site, outputs in seen.items():
        torch.testing.assert_close(means[site], torch.cat(outputs).double().mean((0, 1)))


def test_every_interval_holds_its_figure_and_comes_from_documents() -> None:
    for m in loss.measure(evaluation(grafted("topk", dtype=torch.float32)), loss.Options()):
        assert m.resampled == "documents"
        assert m.replicates is not None
        assert np.min(m.replicates) <= m.value <= np.max(m.replicates)


def test_what_no_unit_owns_is_not_carried_by_units() -> None:
    """A side MLP beside the experts: the units carry what is left when it is taken away, and no more."""
    system = System("pools", subject("pools", torch.float32), None)
    found = measured(system)
    ce = {name: found[f"loss/{name}_bits_per_byte"] for name in ("zero_ablated", "mean_ablated", "rest_zeroed")}
    native = found["loss/bits_per_byte"]
    for name, ablated in (("carried", "zero_ablated"), ("carried_mean", "mean_ablated")):
        share = (ce[ablated] - ce["rest_zeroed"]) / (ce[ablated] - native)
        assert found[f"loss/{name}"] == pytest.approx(share, rel=1e-6)
    assert abs(found["loss/carried"] - 1) > 1e-3
    for layer in system.model.feed_forwards():
        layer.v.data.zero_()  # pyright: ignore (experts that write nothing carry nothing)
    assert measured(system)["loss/carried"] == pytest.approx(0, abs=1e-5)
