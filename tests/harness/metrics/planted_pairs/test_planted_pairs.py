"""A small world with planted pairs, a model built by hand in which conjunctions really combine, and controls."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import models
from harness.corpus.labels import Concept, Labels
from harness.corpus.stored import Batch
from harness.metrics import planted_pairs
from harness.systems.cost import Cost
from harness.systems.evaluation import Evaluation
from harness.systems.system import Encoded, Site, System
from harness.tables.measurement import Measurement

TOPIC, TOPICS, SEQUENCES, LENGTH = 12, 2, 96, 16
CONCEPTS, PAIRS = TOPIC * TOPICS, TOPIC * TOPICS // 2
# Concepts 2p and 2p + 1 are pair p. One pair in two is a conjunction; the others add up.
CONJUNCTIONS = range(0, PAIRS, 2)
# A token says which two concepts of a topic hold: those of a pair, or one of a pair and one of another.
TOKENS = [
    *((2 * pair, 2 * pair + 1) for pair in range(PAIRS)),
    *((topic * TOPIC + at, topic * TOPIC + (at + 3) % TOPIC) for topic in range(TOPICS) for at in range(TOPIC)),
]
LABELLED = (
    *(Concept(f"c{i}", "concept") for i in range(CONCEPTS)),
    *(
        Concept(f"pair {p}", "conjunction" if p in CONJUNCTIONS else "additive", (f"c{2 * p}", f"c{2 * p + 1}"))
        for p in range(PAIRS)
    ),
    Concept("everything", "other"),
)
VOCABULARY = len(TOKENS) + CONCEPTS + PAIRS
OPTIONS = planted_pairs.Options(contexts=8, active=6)


class Split:
    """Every second token is of a planted pair; two documents a sequence."""

    length = LENGTH

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        shape = (SEQUENCES, LENGTH)
        drawn = np.where(
            rng.random(shape) < 0.5, rng.integers(0, PAIRS, shape), rng.integers(PAIRS, len(TOKENS), shape)
        )
        ids = torch.from_numpy(drawn)
        document = torch.arange(SEQUENCES)[:, None] * 2 + (torch.arange(LENGTH) >= 7).long()
        self.all = Batch(ids, document, torch.zeros_like(ids), torch.full_like(ids, 2), torch.full_like(ids, -1))

    def __len__(self) -> int:
        return SEQUENCES

    def batch(self, indices: torch.Tensor) -> Batch:
        columns = ("input_ids", "document", "domain", "n_bytes", "ply")
        return Batch(*(getattr(self.all, name)[indices] for name in columns))

    def labels(self) -> Labels:
        rows = []
        for token in self.all.input_ids.reshape(-1).tolist():
            pair = [CONCEPTS + token] if token < PAIRS else []
            rows.append(sorted([*TOKENS[token], *pair, len(LABELLED) - 1]))
        indptr = np.cumsum([0, *(len(row) for row in rows)])
        return Labels(LABELLED, indptr, np.array(list(itertools.chain(*rows)), np.int32), np.ones(len(rows), bool))


def built(order: np.ndarray | None = None, layers: tuple[int, int] = (0, 0)) -> System:
    """A unit for every concept, which promotes the concept's symbol, in the two `layers` for the two concepts of a
    pair; in the last layer one for every conjunction, which fires where both concepts were written and promotes a third
    symbol. Its other units, and the head, mix all a little, so that no two units are alike. order: of the units of each
    layer."""
    d_model = 2 * CONCEPTS + PAIRS + 2
    model = models.build(
        "dense-relu", d_model=d_model, n_layers=max(layers) + 2, n_heads=1, d_ff=CONCEPTS, vocab_size=VOCABULARY,
        max_position_embeddings=LENGTH, tie_word_embeddings=False,
    ).eval()  # fmt: skip
    rng = np.random.default_rng(0)
    says, always = 2 * rng.uniform(0.8, 1.2, CONCEPTS), d_model - 1
    parameters = dict(model.named_parameters())
    for name, parameter in parameters.items():
        if "norm" not in name:
            parameter.data.zero_()
    embedding, head = parameters["model.embed_tokens.weight"].data, parameters["lm_head.weight"].data
    for token, concepts in enumerate(TOKENS):
        embedding[token, [*concepts, always]] = 1.0
    reads, writes = (
        [parameters[f"model.layers.{layer}.feed_forward.{side}.weight"].data for layer in range(max(layers) + 2)]
        for side in ("w_in", "w_out")
    )
    for concept in range(CONCEPTS):
        # What is read is divided by its norm: of three ones, √3 / √d_model each.
        reads[layers[concept % 2]][concept, concept] = math.sqrt(3 / d_model)
        writes[layers[concept % 2]][CONCEPTS + concept, concept] = says[concept]
    for pair in CONJUNCTIONS:
        for concept, partner in ((2 * pair, 2 * pair + 1), (2 * pair + 1, 2 * pair)):
            # A later layer reads its concept beside what was written for the partner, so it writes less.
            beside = says[partner] ** 2 if layers[concept % 2] > layers[partner % 2] else 0.0
            reads[-1][pair, CONCEPTS + concept] = math.sqrt((3 + beside) / 3) / says[concept]
        reads[-1][pair, always] = -1.75
        writes[-1][2 * CONCEPTS + pair, pair] = 10.0
    spare = [unit for unit in range(CONCEPTS) if unit not in CONJUNCTIONS]
    reads[-1][spare] = torch.from_numpy(rng.normal(0, 0.3, (len(spare), d_model))).float()
    writes[-1][:, spare] = torch.from_numpy(rng.normal(0, 0.05, (d_model, len(spare)))).float()
    head += torch.from_numpy(rng.normal(0, 0.1, head.shape)).float()
    for symbol in range(CONCEPTS + PAIRS):
        head[len(TOKENS) + symbol, CONCEPTS + symbol] += 1.0
    if order is not None:
        for read, write in zip(reads, writes, strict=True):
            read[:], write[:] = read[order].clone(), write[:, order].clone()
    return System("built", model, None)


def untrained(layers: int = 2) -> System:
    torch.manual_seed(0)
    model = models.build(
        "dense-relu",
        d_model=32,
        n_layers=layers,
        n_heads=2,
        d_ff=64,
        vocab_size=VOCABULARY,
        max_position_embeddings=LENGTH,
    ).eval()
    for parameter in model.parameters():  # at initialisation the layers write next to nothing
        parameter.data *= 3 if parameter.ndim > 1 else 1
    return System("untrained", model, None)


def measured(system: System, concepts: tuple[Concept, ...] = LABELLED, **options: Any) -> dict[str, Measurement]:
    def no_codes(_site: Site) -> Encoded:
        raise AssertionError("what fires is read again")

    dev, test = Split(1), Split(0)
    labels = {"dev": replace(dev.labels(), concepts=concepts), "eval": replace(test.labels(), concepts=concepts)}
    evaluation = Evaluation(
        system=system,
        split=test,  # pyright: ignore[reportArgumentType]
        dev=dev,  # pyright: ignore[reportArgumentType]
        sequences=SEQUENCES,
        codes_sequences=SEQUENCES,
        batch_sequences=40,
        resamples=100,
        load_codes=no_codes,
        cost=Cost(1, 1, 1.0, 1.0, 1, 1.0, 1.0, 1),
        load_labels=labels.__getitem__,
    )
    found = planted_pairs.measure(evaluation, OPTIONS.model_copy(update=options))
    assert len({one.name for one in found}) == len(found)
    return {one.name.removeprefix("planted_pairs/"): one for one in found}


def values(found: dict[str, Measurement]) -> dict[str, float]:
    return {name: one.value for name, one in found.items()}


@pytest.fixture(scope="module")
def of_built() -> dict[str, Measurement]:
    return measured(built())


def check_told(found: dict[str, float], figure: str) -> None:
    assert found[f"{figure}_recall"] >= 5 / 6
    assert found[f"{figure}_flagged_of_additive"] <= 1 / 5
    assert found[f"{figure}_precision"] >= 5 / 6
    assert min(found[f"{figure}_auroc"], found[f"{figure}_auroc_unplanted"], found[f"{figure}_auroc_share"]) > 0.9
    assert found[f"{figure}_over_strangers_of_conjunctions"] > 4
    assert 0.5 < found[f"{figure}_over_strangers_of_additive"] < 2
    assert found[f"{figure}_bits_of_conjunctions"] > 3 * found[f"{figure}_bits_of_additive"]


@pytest.mark.parametrize("figure", ["excess", "conjunction"])
def test_conjunctions_that_combine_are_told_from_additive_pairs(of_built: dict[str, Measurement], figure: str) -> None:
    check_told(values(of_built), figure)


@pytest.mark.parametrize("layers", [(0, 2), (2, 0)])
def test_the_units_of_a_pair_may_be_layers_apart_in_either_order(layers: tuple[int, int]) -> None:
    found = values(measured(built(layers=layers)))
    assert found["tested_of_conjunctions"] == len(CONJUNCTIONS)
    check_told(found, "excess")
    check_told(found, "conjunction")


def test_concepts_that_are_no_pair_do_not_stand_out(of_built: dict[str, Measurement]) -> None:
    found = values(of_built)
    assert found["tested_of_unplanted"] == PAIRS
    for figure in ("excess", "conjunction"):
        assert found[f"{figure}_flagged_of_unplanted"] <= 2 / PAIRS
        assert 0.5 < found[f"{figure}_over_strangers_of_unplanted"] < 2


def test_every_planted_pair_is_tested_with_the_units_that_tell_its_parts(of_built: dict[str, Measurement]) -> None:
    found = values(of_built)
    assert found["pairs"] == PAIRS
    assert found["tested_of_conjunctions"] == found["with_strangers_of_conjunctions"] == len(CONJUNCTIONS)
    assert found["tested_of_additive"] == PAIRS - len(CONJUNCTIONS)
    assert (found["untold"], found["apart"], found["last_layer"]) == (0, 0, 0)
    assert found["part_f1"] == pytest.approx(1)
    assert of_built["excess_auroc"].saw == f"{PAIRS} of {PAIRS} planted pairs and {PAIRS} others, 8 contexts each"


def test_where_relations_are_told_wrong_the_edits_do_not_agree() -> None:
    swap = {"conjunction": "additive", "additive": "conjunction"}
    wrong = tuple(replace(concept, kind=swap.get(concept.kind, concept.kind)) for concept in LABELLED)
    found = values(measured(built(), wrong))
    assert max(found["excess_auroc"], found["conjunction_auroc"]) < 0.1
    assert found["excess_precision"] <= 1 / 6


def test_figures_are_finite_with_intervals_over_pairs_or_say_why_not(of_built: dict[str, Measurement]) -> None:
    for name, one in of_built.items():
        if name.endswith("_of_mixtures") and not name.startswith(("tested", "with_strangers")):
            assert "0 of 0 mixtures" in str(one.reason)
            continue
        assert math.isfinite(one.value), name
        assert one.direction == "none"
        if one.replicates is not None:
            assert one.resampled == "units"
            assert len(one.replicates) == 100
            assert np.isfinite(one.replicates).all()


def test_the_numbers_of_units_do_not_matter(of_built: dict[str, Measurement]) -> None:
    order = np.random.default_rng(3).permutation(CONCEPTS)
    found = values(measured(built(order)))
    for name, value in values(of_built).items():
        assert found[name] == pytest.approx(value, rel=1e-3, nan_ok=True), name


def test_units_of_the_last_layer_stand_for_a_concept_only_where_they_are_asked_for_or_there_is_no_other() -> None:
    assert measured(untrained(), least_f1=0.15)["last_layer"].value == 0
    assert measured(untrained(), least_f1=0.15, last_layer=True)["last_layer"].value > 0
    assert measured(untrained(layers=1), least_f1=0.15)["last_layer"].value == 1


def test_an_untrained_subject_says_nothing_of_relations() -> None:
    found = measured(untrained(), least_f1=0.15)
    figures = values(found)
    assert min(figures["tested_of_conjunctions"], figures["tested_of_additive"]) >= 4
    for figure in ("excess", "conjunction"):
        assert 0.2 < figures[f"{figure}_auroc_share"] < 0.8
        flagged = [found[f"{figure}_flagged_of_{name}"] for name in ("conjunctions", "additive", "unplanted")]
        assert all("underpowered" in str(one.reason) if math.isnan(one.value) else one.value <= 0.25 for one in flagged)


@pytest.mark.parametrize(
    ("option", "value", "untold", "why"),
    [("least_f1", 1.0, 12, "12 have a part that no unit tells"), ("contexts", 900, 0, "12 fewer than 900")],
)
def test_too_few_testable_pairs_are_said_with_why_and_not_a_number(
    option: str, value: float, untold: int, why: str
) -> None:
    chosen: dict[str, Any] = {option: value}
    found = measured(untrained(), **chosen)
    assert (found["untold"].value, found["apart"].value) == (untold, 12 - untold)
    for name in ("excess_auroc", "conjunction_precision", "excess_bits_of_additive", "part_f1"):
        assert math.isnan(found[name].value)
        assert str(found[name].reason).startswith("underpowered: ")
    assert why in str(found["excess_recall"].reason)
    assert "0 of 6 conjunctions and 0 of 6 additive can be tested" in str(found["excess_recall"].reason)


def test_a_corpus_that_names_no_pairs_gives_no_figure() -> None:
    bare = tuple(replace(concept, parts=()) for concept in LABELLED)
    found = measured(built(), bare)
    assert found["pairs"].value == 0
    assert found["excess_auroc"].reason == "the corpus names no pairs of concepts"
