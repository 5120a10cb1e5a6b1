"""The stage `reference`: the loss of an n-gram model, or the floor, on the targets that systems are measured on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from harness.corpus import floor
from harness.corpus.config import CorpusConfig
from harness.corpus.references import FLOOR, log_probabilities
from harness.corpus.stored import Corpus  # at run time too: how it is read is part of the key
from harness.metrics import loss
from harness.store.stages import Stage
from harness.tables.measurement import Measurement, load_measurements, save_measurements

if TYPE_CHECKING:
    from harness.experiment.schema import EvaluationConfig


def stage(name: str, evaluation: EvaluationConfig, corpus: Stage) -> Stage:
    """Keyed by the n-gram model, the corpus and how much of it is scored."""
    return Stage(
        kind="reference",
        label=f"reference {name}",
        config={"reference": name, "sequences": evaluation.sequences, "resamples": evaluation.resamples},
        upstream=(corpus.key,),
        modules=(__name__,),
    )


def produce(name: str, corpus: Corpus, text: CorpusConfig, config: EvaluationConfig, work: Path) -> None:
    total = min(config.sequences, len(corpus.eval))
    if name == FLOOR:
        log_p = floor.log_probabilities(text, corpus.eval, corpus.documents.__getitem__, total)
        assert log_p is not None, "the plan asked"
    else:
        log_p = log_probabilities(name, corpus)  # [sequences, length], nats
    batch = corpus.eval.batch(torch.arange(total))
    targets = slice(1, None)
    document = batch.document[:, targets].reshape(-1)
    ids, rows = document.unique(return_inverse=True)

    def by_document(values: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(ids), dtype=torch.float64).index_add_(0, rows, values.reshape(-1).double())

    nats = -torch.as_tensor(log_p[:total])[:, targets]
    reached = ~nats.isnan()  # the floor is out of reach where a document was cut
    measured = loss.summaries(
        by_document(nats.masked_fill(~reached, 0)),
        by_document(batch.n_bytes[:, targets] * reached),
        by_document(reached),
        config.resamples,
    )
    saw = loss.seen(int(reached.sum()), reached.numel(), total)
    save_measurements(work, [replace(one, saw=saw) for one in measured], {})


def read(folder: Path) -> list[Measurement]:
    return load_measurements(folder)[0]
