"""The whole metric, on a world where planted units stand among units that fire at random."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

import models
from harness.base.errors import BadInput
from harness.base.settings import validated
from harness.metrics import autointerp
from harness.metrics.autointerp import Options, measure
from harness.systems.evaluation import Evaluation
from harness.systems.system import Encoded, Site, System
from harness.tables.measurement import Measurement
from kernels.codes import Codes

NAMES = ("the", "money", "closing")
N_UNITS = 64
SMALL = {"units": 12, "scorers": ["rule", "simulation"], "density_edges": [0.005, 0.2]}


def words(name: Callable[[int], str]) -> Any:
    """A tokenizer of whole words: `name(token)` each, and no end-of-text token."""
    return SimpleNamespace(
        convert_ids_to_tokens=name, decode=lambda ids: name(ids[0]), all_special_ids=[], eos_token_id=None
    )


def planted_codes(world) -> torch.Tensor:
    """`[tokens, units]`: 12 units with a rule (each kind four times, of other strengths) and 12 that are noise."""
    generator = np.random.default_rng(5)
    n = world.ids.size
    activations = np.zeros((n, N_UNITS), np.float32)
    for unit in range(12):
        activations[:, unit] = world.fires(NAMES[unit % 3]) * (1 + generator.random(n))
        activations[:, 12 + unit] = (generator.random(n) < 0.03) * (1 + generator.random(n))
    return torch.as_tensor(activations)


def evaluation(world, folder: Path, activations: list[torch.Tensor]) -> Evaluation:
    """A model whose weights say nothing: codes are planted, by layer."""
    torch.manual_seed(0)
    settings = {"d_model": 16, "n_layers": 2, "n_heads": 2, "max_position_embeddings": world.ids.shape[1]}
    model = models.build("dense", **settings, vocab_size=int(world.ids.max()) + 1).eval()
    pieces = sorted(set(zip(world.ids.reshape(-1).tolist(), world.pieces, strict=True)))
    ids = torch.as_tensor(world.ids)
    length = ids.shape[1]

    class Split:
        length = ids.shape[1]

        def __len__(self) -> int:
            return len(ids)

        def batch(self, indices: torch.Tensor) -> Any:
            document = indices[:, None].expand(-1, length)
            made = SimpleNamespace(input_ids=ids[indices], document=document)
            made.to = lambda device: made
            return made

    rows = torch.stack([torch.arange(ids.numel()) // length, torch.arange(ids.numel()) % length], 1)

    def load_codes(site: Site) -> Encoded:
        codes = Codes.from_dense(activations[site.layer], rows)
        return Encoded(codes, codes.values)

    return Evaluation(
        system=System("planted", cast(Any, model), None),
        split=cast(Any, Split()),
        dev=cast(Any, Split()),
        sequences=len(ids),
        codes_sequences=len(ids),
        batch_sequences=16,
        resamples=200,
        load_codes=load_codes,
        cost=cast(Any, None),
        artifacts=folder,
        tokenizer=cast(Any, words(lambda token: dict(pieces)[token])),
    )


def by_name(found: list[Measurement]) -> dict[str, Measurement]:
    return {m.name: m for m in found}


@pytest.fixture
def only_planted(world) -> list[torch.Tensor]:
    made = planted_codes(world)
    made[:, 12:] = 0
    return [made, torch.zeros_like(made)]


def test_planted_units_score_full_marks_and_controls_do_not(world, only_planted, tmp_path: Path) -> None:
    found = by_name(measure(evaluation(world, tmp_path, only_planted), Options(**SMALL)))
    value = {name: m.value for name, m in found.items()}
    assert value["autointerp/units"] == 12
    assert value["autointerp/rule_balanced_accuracy"] == 1
    assert value["autointerp/simulation_pearson"] > 0.9
    assert value["autointerp_quantiles/rule_recall_q4"] == 1
    assert value["autointerp_controls/rule_balanced_accuracy_constant"] == 0.5
    # A third of the sample has the same rule, so another unit's explanation is sometimes right.
    assert value["autointerp_controls/rule_balanced_accuracy_another_unit"] < 0.75
    assert value["autointerp_controls/rule_balanced_accuracy_shuffled"] < 0.6
    assert value["autointerp_controls/rule_usable"] == 1
    # In a world of twenty words a random direction is a list of words, which a rule reads as well: no more than this.
    assert 0 < value["autointerp/rule_balanced_accuracy_above_random"] < 0.1
    assert value["autointerp/rule_balanced_accuracy_same_token"] == 1
    assert value["autointerp/scored_share"] == 1
    assert value["autointerp/ablation_over_random"] > 0
    assert value["autointerp_controls/simulation_pearson_constant"] == 0
    assert value["autointerp/outside_strata"] == pytest.approx(1 - 12 / 128)
    replicates = found["autointerp_controls/rule_balanced_accuracy_another_unit"].replicates
    assert replicates is not None
    assert replicates.shape == (200,)
    assert found["autointerp/rule_balanced_accuracy"].resampled == "units"
    assert (tmp_path / "units.parquet").is_file()


def test_units_that_fire_at_random_make_the_judge_unusable(world, tmp_path: Path, caplog) -> None:
    noise = planted_codes(world)
    noise[:, :12] = 0
    found = by_name(measure(evaluation(world, tmp_path, [noise, torch.zeros_like(noise)]), Options(**SMALL)))
    assert 0.4 < found["autointerp/rule_balanced_accuracy"].value < 0.6
    assert found["autointerp_controls/rule_usable"].value == 0
    assert found["autointerp/rule_balanced_accuracy_above_random"].value < 0.05
    assert "not clearly above its controls" in caplog.text


def test_numbering_the_units_otherwise_changes_nothing(world, tmp_path: Path, monkeypatch) -> None:
    made = [planted_codes(world), planted_codes(world).roll(7, 0)]
    order = torch.randperm(N_UNITS, generator=torch.Generator().manual_seed(3))
    writes = torch.randn(N_UNITS, 16, generator=torch.Generator().manual_seed(4))
    found = []
    for name, numbering in (("one", torch.arange(N_UNITS)), ("two", order)):
        written = writes[numbering]  # what a unit writes moves with it
        monkeypatch.setattr(
            autointerp, "mean_writes", lambda _e, sites, _n, w=written: {s: w[f.units] for s, f in sites.items()}
        )
        (tmp_path / name).mkdir()
        codes = [activations[:, numbering] for activations in made]
        renumbered = evaluation(world, tmp_path / name, codes)
        for layer in cast(Any, renumbered.system.model.feed_forwards()):
            layer.w_in.weight.data = layer.w_in.weight.data[numbering]
            layer.w_out.weight.data = layer.w_out.weight.data[:, numbering]
        found.append(measure(renumbered, Options(**{**SMALL, "units": 20})))
    for one, two in zip(*found, strict=True):
        assert one.name == two.name
        if "random" in one.name:  # the model sums its neurons in another order
            assert one.value == pytest.approx(two.value, rel=1e-3)
            continue
        assert one.value == two.value
        assert np.array_equal(one.replicates, two.replicates) if one.replicates is not None else True


def test_without_enough_contexts_the_counts_say_so_and_nothing_is_scored(world, tmp_path: Path, caplog) -> None:
    few = torch.zeros(world.ids.size, N_UNITS)
    few[:30, :4] = 1.0
    options = Options(**{**SMALL, "density_edges": [1e-4, 0.5]})
    found = by_name(measure(evaluation(world, tmp_path, [few, few]), options))
    assert found["autointerp/units"].value == 0
    assert found["autointerp/too_few_contexts"].value == 1
    assert not any("rule" in name for name in found)
    assert "nothing to score" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scorers": ["detection"]}, "scorer detection needs a chat judge"),
        ({"explainer": "llm"}, "explainer llm needs a chat judge"),
        ({"judge": {"base_url": "http://127.0.0.1:1/v1", "model": "m"}, "scorers": ["rule"]}, "needs explainer rule"),
        ({"density_edges": [0.1, 0.01]}, "must ascend"),
        ({"least": 30}, "least 30 is more than the contexts asked for"),
        ({"explain_silent": 12}, "half of explain_silent 12"),  # the other half are near misses, which do not count
    ],
)
def test_options_that_cannot_work_are_refused_before_anything_runs(options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        validated(Options, options, where="metrics.autointerp")


def test_the_judge_decides_who_explains_and_scores() -> None:
    assert Options().who_scores == ("rule", "simulation")
    chat = Options.model_validate({"judge": {"base_url": "http://127.0.0.1:1/v1", "model": "m"}})
    assert chat.who_explains == "llm"
    assert chat.who_scores == ("detection", "fuzzing")
