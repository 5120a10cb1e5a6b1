"""SynthSAEBench's world, its scores against SAELens' own, and the table."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

sae_lens = pytest.importorskip("sae_lens")
from sae_lens import synthetic  # noqa: E402

from harness.base.errors import BadInput, HarnessError, Interrupted  # noqa: E402
from harness.base.stop import STOP  # noqa: E402
from harness.bench import synth_sae_bench  # noqa: E402
from harness.bench.commands import bench  # noqa: E402
from harness.bench.synth_sae_bench import (  # noqa: E402
    FULL,
    SCALED,
    KindResult,
    Tokens,
    World,
    WorldReport,
    measure,
    published_config,
)
from saes.dictionary import Weights  # noqa: E402
from saes.saelens import to_saelens  # noqa: E402
from saes.synthetic import Benchmark, Benchmarked  # noqa: E402
from saes.thresholds import JumpReLU  # noqa: E402
from saes.topk import TopK  # noqa: E402

TINY = World(
    n_features=96,
    d=32,
    roots=2,
    n_latents=24,
    k=3,
    lr=1e-2,
    train_tokens=24_000,
    tested=2_048,
    calibrated=1_024,
    batch_tokens=128,
    sequence_tokens=128,
    orthogonal_steps=10,
)


@pytest.fixture(scope="module")
def tokens() -> Tokens:
    return Tokens(TINY)


def test_the_full_world_is_the_published_one() -> None:
    assert synthetic.SyntheticModelConfig.from_dict(published_config(FULL)) == synthetic.SyntheticModelConfig(
        num_features=16_384,
        hidden_dim=768,
        firing_probability=synthetic.ZipfianFiringProbabilityConfig(exponent=0.5, max_prob=0.4, min_prob=5e-4),
        hierarchy=synthetic.HierarchyConfig(
            total_root_nodes=128,
            branching_factor=4,
            max_depth=3,
            mutually_exclusive_portion=1.0,
            compensate_probabilities=True,
            scale_children_by_parent=True,
        ),
        orthogonalization=synthetic.OrthogonalizationConfig(num_steps=100, lr=3e-4),
        correlation=synthetic.LowRankCorrelationConfig(rank=25, correlation_scale=0.1),
        mean_firing_magnitudes=synthetic.LinearMagnitudeConfig(start=5.0, end=4.0),
        std_firing_magnitudes=synthetic.FoldedNormalMagnitudeConfig(mean=0.5, std=0.5),
        bias=0.5,
        seed=42,
    )
    assert (FULL.n_latents, FULL.k, FULL.lr, FULL.train_tokens, FULL.batch_tokens) == (
        4096,
        25,
        3e-4,
        200_000_000,
        1024,
    )


def test_the_world_is_what_saelens_makes_of_its_settings(tokens: Tokens) -> None:
    theirs = synthetic.SyntheticModel(synthetic.SyntheticModelConfig.from_dict(published_config(TINY)))
    assert torch.equal(theirs.feature_dict.feature_vectors, tokens.features)
    assert torch.equal(theirs.feature_dict.bias, tokens.model.feature_dict.bias)
    assert torch.equal(
        theirs.activation_generator.firing_probabilities, tokens.model.activation_generator.firing_probabilities
    )
    torch.manual_seed(1_000_000_007 + 5)
    x, strengths = theirs.sample_with_features(TINY.sequence_tokens)
    assert torch.equal(tokens.sequence(5)[0], x)
    assert torch.equal(tokens.sequence(5)[1], strengths)


def test_a_sequence_is_drawn_from_its_number_and_the_seed_alone(tokens: Tokens) -> None:
    before = torch.get_rng_state()
    both = tokens(torch.tensor([3, 7]))
    assert torch.equal(tokens(torch.tensor([7])).sites[Tokens.site][0], both.sites[Tokens.site][0][128:])
    assert both.rows[128].tolist() == [7, 0]
    tokens.seed = 1
    assert not torch.equal(tokens.sequence(7)[0], both.sites[Tokens.site][0][128:])
    tokens.seed = 0
    assert torch.equal(torch.get_rng_state(), before)


def test_a_child_fires_only_with_its_parent_and_never_beside_a_sibling(tokens: Tokens) -> None:
    there = torch.cat([tokens.sequence(number)[1] > 0 for number in range(20)])
    assert tokens.model.hierarchy is not None
    families = 0
    nodes = list(tokens.model.hierarchy.roots)
    while nodes:
        node = nodes.pop()
        nodes.extend(node.children)
        if node.children:
            children = there[:, [child.feature_index for child in node.children]]
            assert int(children.sum(1).max()) <= 1
            assert not bool((children.any(1) & ~there[:, node.feature_index]).any())
            families += 1
    assert families > 2


def random_weights(tokens: Tokens) -> Weights:
    """Some rows near features, two near one and the same, others anywhere, one latent that cannot fire."""
    generator = torch.Generator().manual_seed(3)
    rows = torch.nn.functional.normalize(torch.randn(24, 32, generator=generator), dim=1)
    rows[:10] = tokens.features[:10] + 0.1 * rows[:10]
    rows[10] = -tokens.features[0]
    b_enc = torch.zeros(24)
    b_enc[5] = -1e6
    return Weights(rows.T.contiguous(), b_enc, 0.9 * rows, torch.full((32,), 0.02), threshold=torch.full((24,), 1.1))


@pytest.mark.parametrize("form", ["jumprelu", "topk"])
def test_scores_are_those_that_saelens_computes_of_the_same_dictionary(tokens: Tokens, form: str) -> None:
    weights = random_weights(tokens)
    dictionary = JumpReLU(weights) if form == "jumprelu" else TopK(replace(weights, threshold=None), 3)
    torch.manual_seed(11)
    theirs = synthetic.eval_sae_on_synthetic_data(
        to_saelens(dictionary), tokens.model.feature_dict, tokens.model.activation_generator, 1000, batch_size=250
    )
    torch.manual_seed(11)
    ours = Benchmark(dictionary, tokens.features)
    for _ in range(4):
        ours.add(*tokens.model.sample_with_features(250))
    assert asdict(ours.scores()) == pytest.approx(
        {
            "f1": theirs.classification.f1_score,
            "precision": theirs.classification.precision,
            "recall": theirs.classification.recall,
            "mcc": theirs.mcc,
            "uniqueness": theirs.uniqueness,
            "explained_variance": theirs.explained_variance,
            "l0": theirs.sae_l0,
            "dead_share": theirs.dead_latents / 24,
        },
        rel=1e-5,
    )
    assert 0 < theirs.dead_latents < 12
    assert 0.3 < theirs.uniqueness < 1


def test_scores_of_a_dictionary_that_can_be_counted_by_hand() -> None:
    """Features e0, e1, e2; latents −e0 (of e0, and never right), e1, (e1 + e2) / √2, which is nearer to neither."""
    rows = torch.tensor([[-1.0, 0, 0], [0, 1, 0], [0, 0.5**0.5 + 1e-3, 0.5**0.5]])
    dictionary = JumpReLU(Weights(rows.T.contiguous(), torch.zeros(3), rows, torch.zeros(3), threshold=torch.zeros(3)))
    strengths = torch.tensor([[2.0, 0, 0], [0, 2, 0], [0, 0, 2], [0, 0, 0]])
    mark = Benchmark(dictionary, torch.eye(3))
    mark.add(strengths, strengths)
    scores = mark.scores()
    # Latent 1 fires where e1 is and nowhere else. Latent 2 stands for e1 too, and fires with e2 as well.
    assert scores.precision == pytest.approx((0 + 1 + 1 / 2) / 3)
    assert scores.recall == pytest.approx((0 + 1 + 1) / 3)
    assert scores.f1 == pytest.approx((0 + 1 + 2 / 3) / 3)
    assert scores.mcc == pytest.approx((1 + 1 + 0.5**0.5) / 3, abs=1e-3)
    assert scores.uniqueness == pytest.approx(2 / 3)
    assert (scores.l0, scores.dead_share) == (3 / 4, 1 / 3)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("table")
    measure(out, TINY, ["batchtopk", "batchtopk[frozen=decoder]", "matryoshka[widths=[6,12]]"], seeds=2)
    return out


def test_a_frozen_decoder_recovers_less_and_the_table_says_so(table: Path) -> None:
    stored = json.loads((table / "table.json").read_text())
    scores = {kind["name"]: [Benchmarked(**score) for score in kind["scores"]] for kind in stored["kinds"]}
    for learnt, control in zip(scores["batchtopk"], scores["batchtopk[frozen=decoder]"], strict=True):
        assert learnt.mcc > control.mcc + 0.1
        assert learnt.f1 > control.f1
        assert learnt.l0 == pytest.approx(3, rel=0.1)
    assert scores["batchtopk"][0] != scores["batchtopk"][1]
    assert (stored["world"]["n_features"], stored["features_per_token"] > stored["frequent_per_token"]) == (96, True)
    text = (table / "table.md").read_text()
    mean = sum(score.f1 for score in scores["batchtopk"]) / 2
    assert f"| `batchtopk` | {mean:.4f} ± " in text
    assert "| Matryoshka (*published*) | 0.8793 | 0.7927 | 0.7792 | 0.9987 | 25 | | |" in text
    assert "scaled down" in text
    assert "2 seeds" in text


def test_a_row_that_missed_its_target_l0_is_marked() -> None:
    score = Benchmarked(0.5, 0.5, 0.5, 0.5, 1.0, 0.8, 3.2, 0.0)
    rows = [KindResult("near", [score], 1.0), KindResult("far", [replace(score, l0=2.6)], 1.0)]
    text = "\n".join(synth_sae_bench._markdown(WorldReport(TINY, 5.0, 3.0, 1.0, rows)))
    assert "| 3.20 |" in text
    assert "| 2.60 (!) |" in text


def test_nothing_is_left_but_the_table(table: Path) -> None:
    assert sorted(path.name for path in table.iterdir()) == ["table.json", "table.md"]


def test_a_run_that_was_stopped_goes_on_and_ends_with_the_same_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = measure(tmp_path / "whole", TINY, ["batchtopk"])
    monkeypatch.setattr(STOP, "requested", True)
    with pytest.raises(Interrupted, match="run the same command to continue"):
        measure(tmp_path / "cut", TINY, ["batchtopk"])
    monkeypatch.setattr(STOP, "requested", False)
    assert (tmp_path / "cut/work/seed-0/checkpoint.pt").exists()
    with pytest.raises(HarnessError, match="made with other settings or dictionaries"):
        measure(tmp_path / "cut", TINY, ["topk"])
    assert measure(tmp_path / "cut", TINY, ["batchtopk"]).kinds[0].scores == whole.kinds[0].scores
    text = (tmp_path / "cut/table.md").read_text()
    assert "One seed: the order of rows is no verdict." in text


@pytest.mark.parametrize(
    ("row", "says"),
    [("batchtpk", "did you mean batchtopk"), ("topk[kk=3]", "kk"), ("topk[frozen=both]", "must be one of none")],
)
def test_a_row_that_cannot_be_is_named(row: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=says) as caught:
        measure(tmp_path, TINY, [row])
    assert str(caught.value).startswith(row)


def test_every_autoencoder_that_is_registered_is_a_row() -> None:
    names = synth_sae_bench.kinds()
    assert {"relu", "topk", "jumprelu", "matryoshka", "feature_choice", "saelens:jumprelu"} < set(names)
    assert "transcoder" not in names
    for name in names:
        assert synth_sae_bench.config_of(name, **synth_sae_bench._shared(SCALED)).n_latents == SCALED.n_latents


def test_the_command_says_which_options_belong_to_which_world(tmp_path: Path) -> None:
    refused = CliRunner().invoke(bench, ["dictionaries", "--full", "--out", str(tmp_path)])
    assert isinstance(refused.exception, BadInput)
    assert "--world synth_sae_bench" in str(refused.exception)
    helped = CliRunner().invoke(bench, ["dictionaries", "--help"], env={**os.environ, "COLUMNS": "200"})
    assert all(word in helped.output for word in ("synth_sae_bench", "--full", "--seeds", "--kinds"))
