"""The metric from dev pairs to the table's figures, on a tiny system."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.corpus.stored import Batch
from harness.metrics import joint
from harness.metrics.joint import pairs, primary
from harness.metrics.joint.against_strangers import FIGURES
from harness.metrics.joint.passes import PairTable, Variants, by_sequence
from harness.systems.cost import Cost
from harness.systems.evaluation import Evaluation
from harness.systems.system import Encoded, Site, System
from harness.tables.measurement import Measurement
from kernels.codes import Codes


class Split:
    """Sequences of 16 tokens of three kinds, two documents each."""

    length = 16

    def __init__(self, seed: int, sequences: int = 12, documents: int = 2) -> None:
        ids = torch.randint(0, 3, (sequences, 16), generator=torch.Generator().manual_seed(seed))
        document = torch.arange(sequences)[:, None] * 2 + (torch.arange(16) >= 7).long()
        document = document if documents > 1 else torch.zeros_like(ids)
        self.all = Batch(ids, document, torch.zeros_like(ids), torch.full_like(ids, 2), torch.full_like(ids, -1))

    def __len__(self) -> int:
        return len(self.all.input_ids)

    def batch(self, indices: torch.Tensor) -> Batch:
        columns = ("input_ids", "document", "domain", "n_bytes", "ply")
        return Batch(*(getattr(self.all, name)[indices] for name in columns))


def evaluation(system: System, folder: Path, **split: int) -> Evaluation:
    def load_codes(_site: Site) -> Encoded:
        raise AssertionError("the primary part reads dev and eval itself")

    return Evaluation(
        system=system,
        split=Split(0, **split),  # pyright: ignore[reportArgumentType]
        dev=Split(1),  # pyright: ignore[reportArgumentType]
        sequences=12,
        codes_sequences=4,
        batch_sequences=5,
        resamples=100,
        load_codes=load_codes,
        cost=Cost(1, 1, 1.0, 1.0, 1, 1.0, 1.0, 1),
        artifacts=folder,
    )


OPTIONS = joint.Options(pairs=18, contexts=8, active=6, shuffled_contexts=4, least_pairs=2)


def measured(of: Evaluation, options: joint.Options = OPTIONS) -> dict[str, Measurement]:
    found = primary.measure(of, options, np.random.default_rng(0))
    assert len({m.name for m in found}) == len(found)
    return {m.name.removeprefix("joint/"): m for m in found}


def test_every_kind_of_system_is_measured_with_pairs_for_a_person_to_read(
    make_system: Callable[[torch.dtype], System], tmp_path: Path
) -> None:
    found = measured(evaluation(make_system(torch.float32), tmp_path))
    broken = {name: m.reason for name, m in found.items() if not math.isfinite(m.value)}
    # Monet's gates are 0 or 1 here: no low and high value to step between.
    # And on so little text, few units are strangers to any other or are seen apart from their partner.
    scarce = {name for name, reason in broken.items() if str(reason).startswith("underpowered: ")}
    assert scarce <= set(FIGURES)
    assert set(broken) - scarce <= {"magnitude_share", "magnitude_floor_share"}
    assert all("no effect" in str(broken[name]) for name in set(broken) - scarce)
    assert found["excess"].replicates is not None
    assert len(found["excess"].replicates) == 100
    assert 0 <= found["novel_top"].value <= 1
    assert 0 < found["testable"].value <= 1
    # The rotation changes who says what, not what both or neither say.
    assert found["excess"].value != found["excess_share_rotated"].value
    data = json.loads((tmp_path / "pairs.json").read_text())
    assert len(data["pairs"]) == 10
    excesses = [pair["excess"] - pair["floor"] for pair in data["pairs"]]
    assert np.diff(excesses).max() <= 2e-6  # rounded to six places
    context = data["pairs"][0]["contexts"][0]
    assert set(context["next"]) == {"both", "only A", "only B", "neither"}
    assert all(0 <= said["p"] <= 1 for outcomes in context["next"].values() for said in outcomes)
    assert (tmp_path / "pairs.md").stat().st_size
    assert (tmp_path / "pairs.html").stat().st_size


def test_after_the_last_layer_nothing_but_the_norm_is_left_to_be_in_common(
    make_subject: Callable[..., object], tmp_path: Path
) -> None:
    model = make_subject("dense-relu")
    model.model.norm = torch.nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    found = measured(evaluation(System("dense-relu", model, None), tmp_path))  # pyright: ignore[reportArgumentType]
    assert found["excess_share_layer1"].value < 1e-9
    assert found["floor_share_layer1"].value < 1e-9
    assert min(found["excess_share_layer0"].value, found["floor_share_layer0"].value) > 1e-4


def test_too_little_text_is_said_with_what_is_needed_and_not_a_number(
    make_subject: Callable[..., object], tmp_path: Path
) -> None:
    system = System("peer", make_subject("peer"), None)  # pyright: ignore[reportArgumentType]
    options = OPTIONS.model_copy(update={"contexts": 5000})
    found = measured(evaluation(system, tmp_path), options)
    assert math.isnan(found["excess"].value)
    assert math.isnan(found["pairs_above_floor"].value)
    assert "of 5000 on 192 tokens; about" in str(found["excess"].reason)
    assert found["testable"].value == 0
    single = measured(evaluation(system, tmp_path, documents=1))
    assert math.isnan(single["excess"].value)
    assert "one document" in str(single["excess"].reason)


def test_a_system_whose_units_never_fire_is_underpowered_and_does_not_fail(
    make_subject: Callable[..., object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = System("peer", make_subject("peer"), None)  # pyright: ignore[reportArgumentType]
    encode = system.encode

    def silent(tokens: torch.Tensor, sites: tuple[Site, ...] | None = None) -> dict[Site, Encoded]:
        def quiet(encoded: Encoded) -> Encoded:
            none = torch.zeros(encoded.codes.nnz, dtype=torch.bool)
            codes: Codes = encoded.codes.keep(none)
            return dataclasses.replace(encoded, codes=codes, strengths=encoded.strengths[none])

        return {site: quiet(encoded) for site, encoded in encode(tokens, sites).items()}

    monkeypatch.setattr(system, "encode", silent)
    found = measured(evaluation(system, tmp_path))
    assert found["excess"].reason == "underpowered: no pair of units fired together on 192 tokens"
    assert found["pairs"].value == 0


def test_equal_seeds_give_equal_figures(make_subject: Callable[..., object], tmp_path: Path) -> None:
    system = System("peer", make_subject("peer"), None)  # pyright: ignore[reportArgumentType]
    one, two = (measured(evaluation(system, tmp_path)) for _ in range(2))
    assert {name: m.value for name, m in one.items()} == {name: m.value for name, m in two.items()}


@pytest.mark.parametrize("name", ["dense-relu", "peer", "monet-hd"])
def test_a_stranger_writes_as_strongly_as_the_unit_in_whose_place_it_is_put(
    make_subject: Callable[..., object], tmp_path: Path, name: str
) -> None:
    system = System(name, make_subject(name), None)  # pyright: ignore[reportArgumentType]
    of = evaluation(system, tmp_path)
    dev = pairs.fired(of, of.batches(12, dev=True), 6)
    test = pairs.fired(of, of.batches(), 6)
    stratum = pairs.strata(system.sites)[0]
    rng = np.random.default_rng(0)
    chosen = pairs.choose(stratum, dev, test, pairs=4, contexts=6, first_pair=0, rng=rng)
    n = len(chosen.units)
    ends = np.ones((n, 2), np.float32)
    table = PairTable([stratum], np.zeros(n, int), chosen.units, ends, ends, np.zeros(n), torch.zeros(n, 3, 2, 16))
    seen = 0
    for prefix, chunk in by_sequence(system, of.split, chosen.contexts.token, 4):
        variants = Variants(system, prefix, chosen.contexts, chunk, table, of.split.length)
        others = torch.as_tensor((chosen.units[chosen.contexts.pair[chunk], 1] + 1) % test[stratum.b].n_units)
        units, values = variants.stranger(others, -torch.ones(len(chunk)))
        written = variants.written(1, units, values).norm(dim=-1)
        torch.testing.assert_close(written, variants.strength[1].to(written.dtype), rtol=1e-4, atol=1e-6)
        assert (values <= 0).all()
        zero = torch.zeros_like(variants.value[0])
        none = torch.full_like(units, -1)
        z = variants.run({"plain": (zero, zero), "none": (zero, zero)}, others={"none": (none, values)})
        # No stranger, no change, but for the last digits: a row's products depend on where it stands, on some machines.
        torch.testing.assert_close(z["plain"], z["none"], rtol=1e-10, atol=1e-12)
        seen += len(chunk)
    assert seen == len(chosen.contexts)
