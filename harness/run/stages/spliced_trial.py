"""The stage `trial` of dictionaries: what the model that runs through them comes to on dev. The subject and the
dictionaries are stages of their own, which rows share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from harness.corpus.stored import Corpus  # at run time too: how it is read is part of the key
from harness.run.numerics import Numerics
from harness.run.stages import dictionary, subject
from harness.store.stages import Stage
from harness.systems.system import System
from harness.training.dictionary_record import DictionaryRecord
from harness.training.objective import dev_cross_entropy
from harness.training.record import TrainingRecord
from harness.training.trials import Outcome

if TYPE_CHECKING:
    from harness.experiment.dictionary_rows import DictionarySpec
    from kernels.codes import Codes


def stage(label: str, numerics: Numerics, corpus: Stage, trained: Stage, learnt: Stage) -> Stage:
    """Keyed by the subject and the dictionaries."""
    upstream = (corpus.key, trained.key, learnt.key)
    return Stage("trial", label, numerics.as_config(), upstream, (__name__,))


def produce(trained: Path, learnt: Path, spec: DictionarySpec, corpus: Corpus, numerics: Numerics, work: Path) -> None:
    """Leaves what the trial came to. `trained`, `learnt`: the folders of the two stages."""
    model = subject.read(trained, numerics.device)
    system = System("trial", model, dict(dictionary.read(learnt, spec, numerics.device)))
    with system.running(dict.fromkeys(system.sites, _as_read), error="drop"):
        loss = dev_cross_entropy(model, corpus.dev)
    cost = DictionaryRecord.load(learnt).added_to(TrainingRecord.load(trained).cost())
    Outcome.of(loss, cost.training_flops).save(work)


def _as_read(codes: Codes) -> Codes:
    return codes
