"""The whole metric on a small planted language: a subject as initialised, and units that are told what holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import models
from harness.corpus.build import build, load
from harness.corpus.labels import Labels, label
from harness.corpus.planted import PlantedCorpus
from harness.corpus.stored import Corpus
from harness.metrics import concepts
from harness.systems.cost import Cost
from harness.systems.evaluation import Evaluation
from harness.systems.system import Encoded, Site, System
from harness.tables.measurement import Measurement
from kernels.codes import Codes

CONFIG = PlantedCorpus(topics=2, concepts=16, bytes_per_domain=12_000, sequence_length=64, shares=(0.3, 0.35, 0.35))
SEQUENCES = 120
OPTIONS = concepts.Options(units=40)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder: Path = tmp_path_factory.mktemp("planted")
    build(CONFIG, folder)
    return load(folder)


@pytest.fixture(scope="module")
def labels(corpus: Corpus) -> dict[str, Labels]:
    labeller, documents = CONFIG.labeller(corpus.info.domains), corpus.documents
    return {
        name: label(labeller, split, documents.__getitem__, SEQUENCES)
        for name, split in (("dev", corpus.dev), ("eval", corpus.eval))
    }


class Told(System):
    """A system whose units' codes are what it is told, on any text: `told(split) -> [tokens, units]`."""

    def __init__(self, model: models.TrunkForCausalLM, told: dict[bytes, np.ndarray]) -> None:
        super().__init__("told", model, None)
        self.told = told

    def encode(self, tokens: torch.Tensor, sites: tuple[Site, ...] | None = None) -> dict[Site, Encoded]:
        dense = torch.from_numpy(np.concatenate([self.told[row.numpy().tobytes()] for row in tokens])).float()
        codes = Codes.from_dense(dense, torch.zeros(len(dense), 2, dtype=torch.long))
        return {site: Encoded(codes, codes.values.abs()) for site in sites or self.sites}


def model() -> models.TrunkForCausalLM:
    torch.manual_seed(0)
    return models.build(
        "dense-relu", d_model=16, n_layers=1, n_heads=2, d_ff=40, vocab_size=257, max_position_embeddings=64
    ).eval()


def evaluation(system: System, corpus: Corpus, labels: dict[str, Labels]) -> Evaluation:
    made = Evaluation(
        system=system,
        split=corpus.eval,
        dev=corpus.dev,
        sequences=SEQUENCES,
        codes_sequences=SEQUENCES,
        batch_sequences=50,
        resamples=100,
        load_codes=lambda site: stored[site],
        cost=Cost(1, 1, 1.0, 1.0, 1, 1.0, 1.0, 1),
        tokenizer=corpus.tokenizer(),
        document=corpus.documents.__getitem__,
        load_labels=labels.__getitem__,
    )
    parts: dict[Site, list[Encoded]] = {}
    for batch in made.batches(SEQUENCES):
        counted = made.counted(batch.input_ids).reshape(-1)
        for site, encoded in system.encode(batch.input_ids).items():
            keep = counted[encoded.codes.token_of_entry()]
            parts.setdefault(site, []).append(Encoded(encoded.codes.keep(keep), encoded.strengths[keep]))
    stored = {
        site: Encoded(Codes.cat([one.codes for one in each]), torch.cat([one.strengths for one in each]))
        for site, each in parts.items()
    }
    return made


def told(corpus: Corpus, labels: dict[str, Labels], units: np.ndarray) -> Told:
    """Unit u is `units[u]`: weights of the concepts that it adds up, 0 where none holds. `[units, concepts]`"""
    known: dict[bytes, np.ndarray] = {}
    for name, split in (("dev", corpus.dev), ("eval", corpus.eval)):
        found = labels[name]
        truth = np.zeros((found.n_tokens, len(found.concepts)), np.float32)
        truth[np.repeat(np.arange(found.n_tokens), np.diff(found.indptr)), found.held] = 1
        values = (truth @ units.T).reshape(-1, split.length, len(units))
        ids = split.column("input_ids").astype(np.int64)
        known |= {row.tobytes(): value for row, value in zip(ids, values, strict=False)}
    return Told(model(), known)


def figures(system: System, corpus: Corpus, labels: dict[str, Labels], **options: int) -> dict[str, float]:
    chosen = OPTIONS.model_copy(update=options)
    found = concepts.measure(evaluation(system, corpus, labels), chosen)
    return {measured.name.removeprefix("concepts/"): measured.value for measured in found}


@pytest.fixture(scope="module")
def measured(corpus: Corpus, labels: dict[str, Labels]) -> dict[str, Measurement]:
    """Of a subject as initialised."""
    found = concepts.measure(evaluation(System("dense-relu", model(), None), corpus, labels), OPTIONS)
    return {one.name.removeprefix("concepts/"): one for one in found}


@pytest.fixture(scope="module")
def untrained(measured: dict[str, Measurement]) -> dict[str, float]:
    return {name: one.value for name, one in measured.items()}


def test_one_unit_a_concept_is_the_best_there_is(corpus: Corpus, labels: dict[str, Labels]):
    n = len(labels["dev"].concepts)
    found = figures(told(corpus, labels, np.eye(n)), corpus, labels, units=n)
    for name in (
        "coverage",
        "coverage_all",
        "found",
        "reconstruction",
        "coverage_conjunction",
        "conjunction_own",
        "probe_1",
    ):
        assert found[name] == pytest.approx(1), name
    for name in ("pair_gap", "split_gap"):
        assert found[name] == pytest.approx(0, abs=1e-12), name
    assert found["conjunction_hidden"] == pytest.approx(0)
    assert found["own_above_additive"] == pytest.approx(0)  # additive pairs have units here too
    # A conjunction holds on every token of its own unit; a unit of a part is pure as well.
    assert found["pure"] == pytest.approx(1)
    assert found["needed"] == pytest.approx(1)
    assert found["coverage_permuted"] < 0.35
    assert found["pure_permuted"] < 0.2
    assert found["coverage_random"] < 0.6


def test_conjunctions_without_a_unit_are_found_in_their_parts(corpus: Corpus, labels: dict[str, Labels]):
    kinds = [concept.kind for concept in labels["dev"].concepts]
    units = np.eye(len(kinds))[[kind != "conjunction" for kind in kinds]]
    found = figures(told(corpus, labels, units), corpus, labels, units=len(units))
    assert found["conjunction_parts"] == pytest.approx(1)
    assert found["conjunction_own"] < 0.1  # a perfect unit of a part is no unit of the pair
    assert found["coverage_conjunction"] < 0.75
    assert found["pair_gap_conjunction"] > 0.2
    assert found["coverage_concept"] == pytest.approx(1)
    assert found["pair_gap_concept"] == pytest.approx(0, abs=1e-12)
    assert found["own_above_additive"] < 0  # additive pairs have units here, conjunctions do not


def units_of(labels: dict[str, Labels], *kinds: str) -> np.ndarray:
    """A unit for every concept of these kinds."""
    of = [concept.kind for concept in labels["dev"].concepts]
    return np.eye(len(of))[[kind in kinds for kind in of]]


def test_units_for_conjunctions_and_none_for_sums_are_the_best_there_is(corpus: Corpus, labels: dict[str, Labels]):
    found = figures(told(corpus, labels, units_of(labels, "concept", "conjunction")), corpus, labels)
    assert found["own_above_additive"] == pytest.approx(1)
    assert found["conjunction_hidden"] == pytest.approx(0)
    assert found["additive_hidden"] == pytest.approx(1)  # as it should be: nothing but its parts is meant


def test_a_conjunction_told_by_its_parts_alone_has_nothing_of_its_own(corpus: Corpus, labels: dict[str, Labels]):
    units = units_of(labels, "concept")
    found = figures(told(corpus, labels, np.concatenate([units, units])), corpus, labels)
    for kind in ("conjunction", "additive"):
        assert found[f"{kind}_parts"] == pytest.approx(1)
        assert found[f"{kind}_own"] == 0
        assert found[f"{kind}_hidden"] == pytest.approx(1)
    assert found["own_above_additive"] == pytest.approx(0)


def test_units_that_fall_silent_on_a_conjunction_earn_nothing(corpus: Corpus, labels: dict[str, Labels]):
    """Dog and not bird, cat and not bird, and no unit for bird: lost, not told."""
    concepts = labels["dev"].concepts
    place = {concept.name: number for number, concept in enumerate(concepts)}
    units = units_of(labels, "concept")
    for number, concept in enumerate(concepts):
        if concept.kind == "conjunction":
            for part in concept.parts:
                units[units[:, place[part]] > 0, number] = -1
    found = figures(told(corpus, labels, units), corpus, labels)
    assert found["conjunction_own"] == 0
    assert found["own_above_additive"] == 0
    assert found["conjunction_hidden"] < 0.5


@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_a_graded_unit_is_a_unit_of_both(weight: float, corpus: Corpus, labels: dict[str, Labels]):
    """More on bird than on dog: a dog unit at one threshold, a bird unit at another."""
    concepts = labels["dev"].concepts
    place = {concept.name: number for number, concept in enumerate(concepts)}
    units = units_of(labels, "concept")
    for number, concept in enumerate(concepts):
        if concept.kind == "conjunction":
            units[units[:, place[concept.parts[0]]] > 0, number] = weight
    found = figures(told(corpus, labels, units), corpus, labels)
    assert found["conjunction_own"] == pytest.approx(1)
    assert found["own_above_additive"] == pytest.approx(1)
    assert found["coverage_all"] > 0.6


def test_one_latent_a_concept_among_many_is_found_by_all_units_and_rarely_drawn(
    corpus: Corpus, labels: dict[str, Labels]
):
    n = len(labels["dev"].concepts)
    idle = np.zeros((7 * n, n))
    idle[:, -1] = 1  # they live, and say what another says already
    found = figures(told(corpus, labels, np.concatenate([np.eye(n), idle])), corpus, labels, units=n)
    assert found["coverage_all"] == pytest.approx(1)
    assert found["coverage"] < 0.5


def test_the_numbers_of_units_do_not_matter(corpus: Corpus, labels: dict[str, Labels]):
    generator = np.random.default_rng(0)
    mixed = generator.random((40, len(labels["dev"].concepts))) * (
        generator.random((40, len(labels["dev"].concepts))) < 0.1
    )
    one = figures(told(corpus, labels, mixed), corpus, labels, units=20)
    other = figures(told(corpus, labels, mixed[generator.permutation(40)]), corpus, labels, units=20)
    for name in ("coverage", "coverage_permuted", "pure", "found", "probe_f1", "bag_auroc", "coverage_layer_0"):
        assert other[name] == pytest.approx(one[name], abs=1e-6), name


def test_an_untrained_subject_is_told_from_nothing_much(untrained: dict[str, float]):
    assert abs(untrained["coverage_above_random"]) < 0.1
    assert 0 < untrained["coverage_permuted"] < untrained["coverage"] < 1
    for name in ("coverage", "coverage_all", "pair_gap", "split_gap", "own_above_additive"):
        assert abs(untrained[f"{name}_above_random"]) < 0.06, name


@pytest.mark.parametrize(
    ("architecture", "shape"),
    [
        ("pools", {"pools": 2, "max_experts": 4}),
        ("switch", {"d_expert": 16, "n_experts": 4}),
        ("dense", {"d_ff": 40}),
        ("peer", {"n_experts": 64, "heads": 2, "k": 4}),
    ],
)
def test_no_kind_of_unit_stands_out_before_it_learnt(
    architecture: str, shape: dict[str, int], corpus: Corpus, labels: dict[str, Labels]
):
    torch.manual_seed(1)
    subject = models.build(
        architecture, d_model=16, n_layers=2, n_heads=2, vocab_size=257, max_position_embeddings=64, **shape
    ).eval()
    found = figures(System(architecture, subject, None), corpus, labels)
    for name in ("coverage", "coverage_all", "pair_gap", "split_gap", "found", "reconstruction"):
        assert abs(found[f"{name}_above_random"]) < 0.06, (name, found[f"{name}_above_random"])


def test_every_figure_is_finite_and_a_share(untrained: dict[str, float]):
    assert all(np.isfinite(value) for value in untrained.values())
    assert {"coverage", "pair_gap", "probe_16", "probe_f1_topic", "bag_f1", "coverage_layer_0"} <= untrained.keys()
    for name, value in untrained.items():
        assert -1 <= value <= 1 or name in ("needed", "coverage_share", "pure_units"), name


def test_what_was_seen_is_stated(measured: dict[str, Measurement]):
    saw = measured["coverage"].saw
    assert saw is not None
    assert f"on {SEQUENCES * 63:,} tokens" in saw  # all but the end of text, which begins every sequence here
    assert "40 of 40 living units" in saw


def test_the_interval_holds_the_figure(measured: dict[str, Measurement]):
    coverage = measured["coverage"]
    assert coverage.replicates is not None
    low, high = np.quantile(coverage.replicates, [0.005, 0.995])
    assert low < coverage.value < high


def test_a_corpus_without_concepts_gives_no_figure(corpus: Corpus, labels: dict[str, Labels]):
    never = concepts.Options(least=10**9)
    found = concepts.measure(evaluation(System("dense-relu", model(), None), corpus, labels), never)
    assert all(one.reason and "no concept holds" in one.reason for one in found)
