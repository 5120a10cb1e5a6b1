"""The stage `codes`: which units fire on the evaluation split, and how strongly."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from harness.base.progress import stage_progress
from harness.corpus.stored import Corpus  # at run time too: how it is read is part of the key
from harness.run.numerics import Numerics
from harness.store.stages import Stage
from harness.systems.cost import Cost
from harness.systems.evaluation import Evaluation, encode_split, read_codes
from harness.systems.system import Site, System
from kernels import dispatch
from kernels.codes import ReadWrite

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from harness.corpus.labels import Labels
    from harness.experiment.schema import EvaluationConfig
    from models.subject import Subject

_KERNELS = "kernels.json"  # op -> implementation that ran


def stage(name: str, evaluation: EvaluationConfig, numerics: Numerics, upstream: tuple[str, ...]) -> Stage:
    """Keyed by how much is encoded, numerics, and the system: its `upstream` keys. `name`: the row and its seed."""
    return Stage(
        kind="codes",
        label=f"codes of {name}",
        config={
            "sequences": evaluation.codes_sequences,
            "batch_sequences": evaluation.batch_sequences,
            **numerics.as_config(),
        },
        upstream=upstream,
        modules=(__name__,),
    )


def evaluation_of(
    name: str,
    model: Subject,
    grafts: Mapping[Site, ReadWrite] | None,
    corpus: Corpus,
    config: EvaluationConfig,
    cost: Cost,
    codes: Path,
    floor: Callable[[int], NDArray[np.float64] | None] | None = None,
    labels: Callable[[str], Labels] | None = None,
) -> Evaluation:
    """A system on the evaluation split, as its metrics see it. `codes`: the folder that `produce` fills; `floor`,
    `labels`: what the corpus knows of itself, see `Evaluation`."""
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
        floor=floor,
        load_labels=labels,
    )


def produce(evaluation: Evaluation, label: str, work: Path) -> None:
    with dispatch.recording() as ran, stage_progress(label) as report:
        encode_split(evaluation, work, report)
    (work / _KERNELS).write_text(json.dumps(ran))


def read_kernels(folder: Path) -> dict[str, str]:
    """Op → implementation that ran. The codes themselves are read site by site, by `Evaluation.load_codes`."""
    return json.loads((folder / _KERNELS).read_text())
