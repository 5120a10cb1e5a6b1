"""Which tokens count: the same ones in every unit metric."""

from pathlib import Path

import numpy as np
import pytest
import torch

import models
from harness.corpus import Corpus
from harness.corpus.build import build
from harness.corpus.build import load as load_corpus
from harness.experiment.schema import load
from harness.metrics import joint, sparsity, usage
from harness.metrics.joint import supporting
from harness.metrics.joint.pairs import fired
from harness.run.stages.codes import evaluation_of, produce
from harness.systems.collecting import collect, collect_text
from harness.systems.cost import Cost
from harness.systems.evaluation import Evaluation

COST = Cost(0, 0, 0.0, 0.0, 0, 0, 0, None)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "text").mkdir()
    for name in range(60):
        (folder / f"text/{name}.txt").write_text(f"a short text, number {name * name * 7919} of sixty. " * 3)
    experiment = load(
        "smoke",
        [f"corpus={{kind: files, path: {folder}, bytes_per_domain: 3000, vocab_size: 300, sequence_length: 16}}"],
    )
    build(experiment.corpus, folder / "built", lambda *_: None)
    return load_corpus(folder / "built")


@pytest.fixture
def evaluation(corpus: Corpus, tmp_path: Path) -> Evaluation:
    torch.manual_seed(0)
    model = models.build(
        "dense-relu",
        d_model=16,
        n_layers=1,
        n_heads=2,
        d_ff=8,
        vocab_size=corpus.info.vocab_size,
        max_position_embeddings=16,
        bos_token_id=0,
        eos_token_id=0,
    ).eval()
    config = load("smoke").evaluation
    made = evaluation_of("dense-relu", model, None, corpus, config, COST, tmp_path)
    made.artifacts = tmp_path
    produce(made, "codes", tmp_path)
    return made


def test_end_of_text_counts_nowhere_and_the_first_token_of_a_sequence_does(evaluation: Evaluation) -> None:
    ids = torch.cat([batch.input_ids for batch in evaluation.batches(evaluation.codes_sequences)])
    assert (ids == 0).any()
    counted = evaluation.counted_of_codes().reshape(ids.shape)
    assert torch.equal(counted, ids != 0)
    (site,) = evaluation.system.sites
    lengths = evaluation.load_codes(site).codes.row_lengths().reshape(ids.shape)
    assert (lengths[ids == 0] == 0).all()
    assert (lengths[:, 0][ids[:, 0] != 0] > 0).any()


def test_every_unit_metric_counts_the_same_tokens(evaluation: Evaluation) -> None:
    expected = int(evaluation.counted_of_codes().sum())
    found = {
        measured.name: measured.value
        for metric in (usage, sparsity)
        for measured in metric.measure(evaluation, metric.Options())
    }
    assert found["usage/tokens"] == found["sparsity/tokens"] == expected
    (site,) = evaluation.system.sites
    nnz = evaluation.load_codes(site).codes.nnz
    assert found["sparsity/l0"] == pytest.approx(nnz / expected)
    density = np.load(evaluation.artifacts / "densities.npz")[str(site)]
    assert density.sum() == pytest.approx(nnz / expected)


def test_a_dictionary_is_judged_on_text_alone(evaluation: Evaluation) -> None:
    indices = torch.arange(len(evaluation.dev))
    (site,) = evaluation.system.sites
    ids = evaluation.dev.batch(indices).input_ids.reshape(-1)
    every = collect(evaluation.system.model, evaluation.dev, indices, [site])
    text = collect_text(evaluation.system.model, evaluation.dev, indices, [site])
    assert (ids == 0).any()
    assert torch.equal(text.rows, every.rows[ids != 0])
    assert torch.equal(text.sites[site][0], every.sites[site][0][ids != 0])


def test_joint_reads_no_end_of_text_and_its_null_has_no_row_for_it(
    evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = torch.cat([batch.input_ids.reshape(-1) for batch in evaluation.batches()]).numpy()
    (read,) = fired(evaluation, evaluation.batches(), active=4).values()
    assert read.n_text == (ids != 0).sum() < read.n_tokens == len(ids)
    assert len(read.token)
    assert not (ids[read.token] == 0).any()

    works = []
    monkeypatch.setattr(supporting.together, "together", lambda work: works.append(work) or [])
    for module, name in (
        (supporting.together, "said"),
        (supporting.predicted, "interactions"),
        (supporting.predicted, "products"),
    ):
        monkeypatch.setattr(module, name, lambda _work: [])
    supporting.supporting(evaluation, joint.Options().supporting, 4, np.random.default_rng(0))
    (work,) = works
    expected = int(evaluation.counted_of_codes().sum())
    for text, firings in ((work.text, work.test), (work.dev_text, work.dev)):
        (firing,) = firings.values()
        assert not (text.ids == 0).any()
        assert firing.n_tokens == len(firing.document) == len(text.ids) == len(text.next)
        assert np.array_equal(firing.document, text.document)
    assert len(work.text.ids) == expected
