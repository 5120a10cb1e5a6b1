"""The stage `subject`: a model trained (or left as it was initialised), after what it needs: a teacher, a dense model
that it starts from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

import models
from harness.base import foreign
from harness.base.progress import stage_progress
from harness.corpus.stored import Corpus  # at run time too: how it is read is part of the key
from harness.run.numerics import Numerics
from harness.run.stages import pretrained
from harness.store.stages import Stage
from harness.training import upcycling
from harness.training.config import TrainingConfig
from harness.training.record import TrainingRecord
from harness.training.subject import Teacher, save_untrained, train_subject
from models.subject import Subject
from models.trunk import TrunkForCausalLM

if TYPE_CHECKING:
    from harness.experiment.rows import SubjectSpec
    from harness.experiment.schema import Experiment


@dataclass(frozen=True)
class SubjectStages:
    """The stage that trains a subject with one seed, and those that it needs: its teacher, and the dense subject that
    it starts from."""

    spec: SubjectSpec
    seed: int
    stage: Stage
    teacher: SubjectStages | Path | None
    origin: SubjectStages | None = None

    def before(self) -> Iterator[Stage]:
        if self.origin is not None:
            yield from self.origin.before()
            yield self.origin.stage
        if isinstance(self.teacher, SubjectStages):
            yield from self.teacher.before()
            yield self.teacher.stage


def stages(spec: SubjectSpec, seed: int, experiment: Experiment, numerics: Numerics, corpus: Stage) -> SubjectStages:
    """Keyed by architecture and settings, training, seed, numerics, corpus, and the stages that it needs."""
    if spec.pretrained is not None:
        return SubjectStages(spec, seed, pretrained.stage(spec, seed, numerics), None)
    config = spec.config
    determined = {
        "architecture": spec.architecture,
        "settings": {name: getattr(config, name) for name in type(config).settings()},
        **numerics.as_config(),
    }
    modules = (__name__, *spec.modules)
    if spec.untrained:
        untrained = {**determined, "training": {"tokens": 0}, "seed": seed}
        stage = Stage("subject", f"subject {spec.name}, seed {seed}", untrained, (corpus.key,), modules)
        return SubjectStages(spec, seed, stage, None)
    upstream = [corpus.key]
    teacher: SubjectStages | Path | None = None
    if isinstance(spec.teacher, Path):
        teacher = spec.teacher
        upstream.append(foreign.digest_of(teacher))
    elif spec.teacher is not None:
        teacher = stages(spec.teacher, seed, experiment, numerics, corpus)
        upstream.append(teacher.stage.key)
    origin: SubjectStages | None = None
    if spec.origin is not None:
        modules = (*modules, "harness.training.upcycling")
        # A trial's seed is none of the table's: it starts from the dense model of the first.
        dense_seed = seed if seed in experiment.seeds else experiment.seeds[0]
        origin = stages(spec.origin, dense_seed, experiment, numerics, corpus)
        upstream.append(origin.stage.key)
        determined["upcycled_from"] = spec.origin.architecture
    stage = Stage(
        kind="subject",
        label=f"subject {spec.name}, seed {seed}",
        config={**determined, "training": spec.training.model_dump(mode="json"), "seed": seed},
        upstream=tuple(upstream),
        modules=modules,
    )
    return SubjectStages(spec, seed, stage, teacher, origin)


@dataclass(frozen=True)
class Start:
    """What training starts from. dense: the stage folder of the dense subject that becomes this one, if any."""

    spec: SubjectSpec
    seed: int
    corpus: Corpus
    numerics: Numerics
    dense: Path | None

    def model(self) -> TrunkForCausalLM:
        """Freshly initialised, or made of the dense one, on the device."""
        spec, text = self.spec, self.corpus
        if self.dense is not None:
            made = upcycling.initial(spec.architecture, spec.settings, self.dense / "model", self.seed)
        else:
            torch.manual_seed(self.seed)
            made = models.build(
                spec.architecture,
                **spec.settings,
                vocab_size=text.info.vocab_size,
                max_position_embeddings=text.train.length,
                bos_token_id=text.info.end_of_text,
                eos_token_id=text.info.end_of_text,
            )
        nn.Module.to(made, self.numerics.device)
        return made


def produce(start: Start, teacher: Teacher | None, label: str, work: Path) -> None:
    """Leaves the trained model with its tokenizer, its curve and its record."""
    spec = start.spec
    if spec.pretrained is not None:
        pretrained.produce(spec, start.seed, start.corpus.train.length, label, work)
        return
    if spec.untrained:
        save_untrained(start.model(), start.corpus.train.length, work)
    else:
        train(start, spec.training, label, work, teacher)
        if start.dense is not None:
            upcycling.charge(work, start.dense)
    start.corpus.tokenizer().save_pretrained(work / "model")


def read(folder: Path, device: str) -> Subject:
    """The trained subject, in evaluation mode."""
    if (folder / pretrained.FILE).is_file():
        return pretrained.read(folder, device)
    model = _loaded(folder / "model", device)
    assert isinstance(model, TrunkForCausalLM)
    return model.eval()


def read_teacher(folder: Path, device: str) -> Teacher:
    """A subject's stage folder as a teacher, with what its own training took."""
    return Teacher(_loaded(folder / "model", device), TrainingRecord.load(folder).training_flops)


def read_foreign_teacher(folder: Path, device: str) -> Teacher:
    """A Hugging Face model as a teacher. What its training took nobody here knows: 0."""
    return Teacher(_loaded(folder, device), 0.0)


def _loaded(folder: Path, device: str) -> PreTrainedModel:
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    return model.to(device)


def train(
    start: Start, training: TrainingConfig, label: str, work: Path, teacher: Teacher | None = None
) -> TrunkForCausalLM:
    """Leaves what `train_subject` leaves in `work`. Raises what it raises."""
    model = start.model()
    with stage_progress(label) as report:
        train_subject(
            model,
            training,
            start.corpus.train,
            seed=start.seed,
            work=work,
            report=report,
            device=start.numerics.device,
            dtype=start.numerics.dtype,
            teacher=teacher,
            dev=start.corpus.dev,
        )
    return model
