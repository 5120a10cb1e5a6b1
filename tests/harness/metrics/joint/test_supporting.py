"""The supporting part from codes to figures: a planted world, the same without it, and too little text."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from harness.corpus import Document
from harness.corpus.stored import Batch
from harness.metrics.joint import sampling
from harness.metrics.joint.counts import meetings
from harness.metrics.joint.firing import Firing
from harness.metrics.joint.options import SupportingOptions
from harness.metrics.joint.supporting import supporting
from harness.systems.cost import Cost
from harness.systems.evaluation import Evaluation
from harness.systems.system import Encoded, Site, System
from harness.tables.measurement import Measurement
from kernels.codes import Codes

SITE, UNITS, VOCABULARY, LENGTH = Site(0, "mlp_out"), 6, 5, 40


class Split:
    length = LENGTH

    def __init__(self, ids: np.ndarray, sequences_a_document: int) -> None:
        shape = torch.zeros(ids.shape, dtype=torch.int64)
        document = shape + torch.arange(len(ids))[:, None] // sequences_a_document
        self.all = Batch(torch.from_numpy(ids), document, shape + document % 2, shape + 2, shape - 1)

    def __len__(self) -> int:
        return len(self.all.input_ids)

    def batch(self, indices: torch.Tensor) -> Batch:
        columns = ("input_ids", "document", "domain", "n_bytes", "ply")
        return Batch(*(getattr(self.all, name)[indices] for name in columns))


def world(seed: int, sequences: int, *, together: float, conjunction: float) -> tuple[np.ndarray, Encoded]:
    """Next tokens to which each unit adds its own, and codes. together: share of tokens on which units 0 and 1 fire
    because of the same; conjunction: nats that units 0 and 1 add when both fire."""
    rng, fixed = np.random.default_rng(seed), np.random.default_rng(99)
    tokens = sequences * LENGTH
    fires = rng.random((tokens, UNITS)) < 0.2
    fires[:, :2] |= (rng.random(tokens) < together)[:, None]
    values = fires * rng.uniform(0.5, 1.5, fires.shape)
    z = values @ fixed.standard_normal((UNITS, VOCABULARY)) * 0.5
    z[:, 4] += conjunction * (fires[:, 0] & fires[:, 1])
    y = (z + rng.gumbel(size=z.shape)).argmax(1).reshape(sequences, LENGTH)
    token, unit = fires.nonzero()
    codes = Codes(
        torch.from_numpy(np.concatenate([[0], fires.sum(1).cumsum()])),
        torch.from_numpy(unit),
        torch.from_numpy(values[token, unit].astype(np.float32)),
        torch.from_numpy(np.stack(np.divmod(np.arange(tokens), LENGTH), 1)),
        UNITS,
    )
    return np.concatenate([np.zeros((sequences, 1), np.int64), y[:, :-1]], 1), Encoded(codes, codes.values.abs())


def evaluation(
    folder: Path,
    *,
    together: float = 0.0,
    conjunction: float = 0.0,
    sequences: int = 120,
    sequences_a_document: int = 2,
) -> Evaluation:
    dev_ids, dev = world(1, sequences, together=together, conjunction=conjunction)
    ids, test = world(2, sequences, together=together, conjunction=conjunction)
    system = SimpleNamespace(
        name="planted", sites=(SITE,), group_width=lambda _site: None, encode=lambda _tokens: {SITE: dev}, device="cpu"
    )
    return Evaluation(
        system=system,  # pyright: ignore[reportArgumentType]
        split=Split(ids, sequences_a_document),  # pyright: ignore[reportArgumentType]
        dev=Split(dev_ids, sequences_a_document),  # pyright: ignore[reportArgumentType]
        sequences=sequences,
        codes_sequences=sequences,
        batch_sequences=sequences,
        resamples=50,
        load_codes=lambda _site: test,
        cost=Cost(1, 1, 1.0, 1.0, 1, 1.0, 1.0, 1),
        artifacts=folder,
    )


OPTIONS = SupportingOptions(
    pairs=5, groups=8, group_size=3, draws=3, outcomes=VOCABULARY, contexts=1200, rank=3, epochs=20, dev_sequences=120
)


def measured(of: Evaluation, options: SupportingOptions = OPTIONS) -> dict[str, Measurement]:
    found = supporting(of, options, active=UNITS, rng=np.random.default_rng(0))
    assert len({m.name for m in found}) == len(found)
    return {m.name.removeprefix("joint/"): m for m in found}


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Measurement], Path]:
    folder = tmp_path_factory.mktemp("planted")
    return measured(evaluation(folder, together=0.2, conjunction=4.0)), folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Measurement]:
    return measured(evaluation(tmp_path_factory.mktemp("plain")))


def test_a_pair_with_one_cause_is_found_and_is_the_only_community(
    planted: tuple[dict[str, Measurement], Path], plain: dict[str, Measurement]
) -> None:
    found, folder = planted
    report = json.loads((folder / "together.json").read_text())[str(SITE)]
    assert [(pair["a"], pair["b"]) for pair in report["pairs"]] == [(0, 1)]
    assert report["communities"] == [[0, 1]]
    assert report["pairs"][0]["met"] / report["pairs"][0]["expected"] == pytest.approx(
        report["pairs"][0]["lift"], rel=1e-3
    )
    assert found["communities"].value == 1
    assert found["in_communities"].value == pytest.approx(2 / UNITS)
    assert found["together_more"].value > 0.01
    assert plain["together_more"].value == 0
    assert plain["communities"].value == 0
    assert math.isnan(plain["modularity"].value)
    assert plain["modularity"].reason == "no pair meets more often than chance"


def test_what_units_say_of_each_other_stands_above_the_null_only_where_planted(
    planted: tuple[dict[str, Measurement], Path], plain: dict[str, Measurement]
) -> None:
    found, _ = planted
    assert found["information_on_on"].value > 0.01 > 5 * abs(plain["information_on_on"].value)
    parts = [found[f"information_{name}"].value for name in ("on_on", "on_value", "value_value")]
    assert found["information"].value == pytest.approx(sum(parts))
    assert found["lift"].value > 1.1
    assert plain["lift"].value == pytest.approx(1, abs=0.05)
    assert found["lift"].replicates is not None
    assert found["total_correlation"].value > 4 * abs(plain["total_correlation"].value)
    # Curveball draws are the null that the formula states.
    assert found["null_check"].value == pytest.approx(1, abs=0.05)


def test_a_conjunction_is_a_gain_held_out_and_shuffling_takes_it_away(
    planted: tuple[dict[str, Measurement], Path], plain: dict[str, Measurement]
) -> None:
    found, _ = planted
    assert found["interaction_gain"].value > 0.01 > 5 * abs(plain["interaction_gain"].value)
    # Not its size: a product that was kept by luck costs bits on eval.
    assert found["interaction_gain_shuffled"].value < 0.2 * found["interaction_gain"].value
    assert found["products_gain_next"].value > 0.01 > 4 * abs(plain["products_gain_next"].value)
    assert abs(found["products_gain_next_shuffled"].value) < 0.2 * found["products_gain_next"].value
    assert found["additive_gain_next"].value > 0.05
    assert abs(found["additive_gain_domain"].value) < 0.02  # domains are names of documents here


def test_too_little_text_is_said_with_what_is_needed_and_not_a_number(tmp_path: Path) -> None:
    found = measured(
        evaluation(tmp_path, sequences=6, sequences_a_document=3), OPTIONS.model_copy(update={"least": 400})
    )
    for name in ("lift", "npmi", "information", "interaction_gain", "products_gain_next", "total_correlation"):
        assert math.isnan(found[name].value)
        assert str(found[name].reason).startswith("underpowered: ")
    assert "meets 400 times on 240 tokens of dev and on 240 of eval" in str(found["lift"].reason)
    assert (
        found["products_gain_next"].reason
        == "underpowered: 2 documents of dev and 2 of eval; at least 6 and 2 are needed"
    )


def test_a_single_domain_has_no_gain_for_domains(tmp_path: Path) -> None:
    of = evaluation(tmp_path, sequences=14)
    for split in (of.split, of.dev):
        split.all.domain.zero_()  # pyright: ignore[reportAttributeAccessIssue]
    found = measured(of, OPTIONS.model_copy(update={"epochs": 1, "pairs": 2}))
    assert found["products_gain_domain"].reason == "the corpus has one domain"
    assert math.isfinite(found["products_gain_next"].value)


def test_games_are_asked_for_their_board(tmp_path: Path) -> None:
    of = evaluation(tmp_path, sequences=20)
    game = Document("game", "chess", "1. e4 d5 2. exd5 Qxd5", "game", (3, 6, 12, 17))
    of.document = lambda _row: game
    options = OPTIONS.model_copy(update={"epochs": 1, "pairs": 2})
    assert measured(of, options)["products_gain_board"].reason == "the corpus has no games"
    for split in (of.split, of.dev):
        split.all.ply[:] = torch.arange(LENGTH) % 4  # pyright: ignore[reportAttributeAccessIssue]
    found = measured(of, options)
    # The codes know nothing of the board here, and its frequencies are all there is to say.
    assert abs(found["additive_gain_board"].value) < 0.02
    assert abs(found["products_gain_board"].value) < 0.02
    assert found["additive_gain_board"].unit == "bit/square"
    for split in (of.split, of.dev):
        split.all.document[:] = torch.arange(20)[:, None] // 10  # pyright: ignore[reportAttributeAccessIssue]
    reason = "underpowered: 2 games of dev and 2 of eval; at least 6 and 2 are needed"
    assert measured(of, options)["products_gain_board"].reason == reason


def test_pools_are_read_within_and_equal_seeds_give_equal_figures(
    make_subject: Callable[..., object], tmp_path: Path
) -> None:
    system = System("pools", make_subject("pools", torch.float32), None)  # pyright: ignore[reportArgumentType]
    ids = np.random.default_rng(0).integers(0, 9, (30, 16))
    of = evaluation(tmp_path)
    of.system, of.split, of.dev = system, Split(ids, 1), Split(ids, 1)  # pyright: ignore[reportAttributeAccessIssue]
    of.sequences = of.codes_sequences = of.batch_sequences = 30
    encoded = system.encode(torch.from_numpy(ids))
    of.load_codes = lambda site: encoded[site]
    options = SupportingOptions(pairs=6, groups=4, group_size=2, draws=2, outcomes=4, contexts=32, rank=2, epochs=1)
    found, again = (measured(of, options) for _ in range(2))
    assert found["together_more_within_pools"].value <= 1
    assert found["lift_within_pools"].value != found["lift"].value
    values = {name: m.value for name, m in found.items()}
    assert values == pytest.approx({name: m.value for name, m in again.items()}, nan_ok=True, rel=1e-6)


def test_pairs_are_drawn_in_proportion_to_meetings_on_dev_among_those_that_meet_on_eval() -> None:
    dense = np.zeros((400, 4))
    dense[:300, :2] = 1  # (0, 1) meets 300 times
    dense[300:, 2:] = 1  # (2, 3) 100
    firing = Firing.from_dense(dense)
    met, rng = meetings(firing), np.random.default_rng(0)
    drawn = [tuple(sampling.draw_pairs(firing, met, met, 10, 0.9, 1, rng)[0]) for _ in range(400)]
    assert drawn.count((0, 1)) / 400 == pytest.approx(0.75, abs=0.07)
    elsewhere = meetings(firing.keep(firing.units < 2))
    assert sampling.draw_pairs(firing, met, elsewhere, 10, 0.9, 5, rng).tolist() == [[0, 1]]
