"""The stages `codes` and `metric`: what a system's codes are on the evaluation split, and what a metric finds there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from transformers import PreTrainedModel

from harness import metrics
from harness.base.progress import Report
from harness.corpus import Corpus
from harness.systems.cost import Cost
from harness.systems.evaluation import Evaluation, encode_split, read_codes
from harness.systems.system import Site, System
from harness.tables.measurement import save_measurements
from kernels import dispatch
from kernels.codes import ReadWrite

if TYPE_CHECKING:
    from pydantic import BaseModel

    from harness.experiment.schema import EvaluationConfig

KERNELS = "kernels.json"  # in a stage folder: op -> implementation that ran in it


def evaluation_of(
    name: str,
    model: PreTrainedModel,
    grafts: Mapping[Site, ReadWrite] | None,
    corpus: Corpus,
    config: EvaluationConfig,
    cost: Cost,
    codes: Path,
) -> Evaluation:
    """A system on the evaluation split, as its metrics see it. `codes`: the folder that `encode` fills."""
    return Evaluation(
        system=System(name, model, None if grafts is None else dict(grafts)),
        split=corpus.eval,
        dev=corpus.dev,
        sequences=config.sequences,
        codes_sequences=config.codes_sequences,
        batch_sequences=config.batch_sequences,
        resamples=config.resamples,
        load_codes=lambda site: read_codes(codes, site),
        cost=cost,
        tokenizer=corpus.tokenizer(),
        document=corpus.documents.__getitem__,
    )


def encode(evaluation: Evaluation, work: Path, report: Report) -> None:
    """The stage `codes`, into `work`."""
    with dispatch.recording() as ran:
        encode_split(evaluation, work, report)
    (work / KERNELS).write_text(json.dumps(ran))


def measure(metric: str, options: BaseModel, evaluation: Evaluation, codes: Path, work: Path) -> None:
    """The stage `metric`, into `work`. `codes`: the folder of the system's codes."""
    evaluation.artifacts = work
    with dispatch.recording() as ran:
        measured = metrics.module_of(metric).measure(evaluation, options)
    save_measurements(work, measured, {**json.loads((codes / KERNELS).read_text()), **ran})
