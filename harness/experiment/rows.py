"""Rows of the table: what a name like `dense[d_ff=1024]+topk[k=16]` means, and whether it can be.

A row is `subject` or `subject+dictionary`. Settings stand in brackets behind either, or under the row in the experiment
file, where they belong to the subject of a row without `+` and to the dictionary of a row with one.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import models
from harness.base import foreign
from harness.base.errors import BadInput
from harness.base.row_name import Part, RowName, together
from harness.base.settings import validated
from harness.experiment.dictionary_rows import DictionarySpec, dictionary_spec
from harness.experiment.pretrained_rows import PretrainedModel, PretrainedShape, is_pretrained, pretrained_model
from harness.experiment.schema import Experiment
from harness.training import upcycling
from harness.training.config import TrainingConfig
from kernels.registry import nearest
from models.config import TrunkConfig

# Fixed by the corpus, so no setting of a system.
_OF_CORPUS = ("vocab_size", "max_position_embeddings", "bos_token_id", "eos_token_id", "pad_token_id")


@dataclass(frozen=True)
class SubjectSpec:
    """A model to train: architecture (name in the registry of models), its settings, how it is trained. Or one that
    was trained elsewhere (`pretrained`), whose architecture is its name.

    untrained: a control that stays as it was initialised. teacher: what its target names: another subject of the
    experiment, or the folder of a Hugging Face model. origin: the trained dense subject that it starts from. budget:
    the part of the experiment's that its own row gets, where the row says so.
    """

    name: str
    architecture: str
    settings: dict[str, Any]
    training: TrainingConfig
    untrained: bool = False
    teacher: SubjectSpec | Path | None = None
    origin: SubjectSpec | None = None
    budget: float | None = None
    pretrained: PretrainedModel | None = None

    @property
    def trained_here(self) -> bool:
        return not self.untrained and self.pretrained is None

    @property
    def config(self) -> TrunkConfig | PretrainedShape:
        if self.pretrained is not None:
            return self.pretrained.shape
        return models.ARCHITECTURES[self.architecture].config(**self.settings)

    @property
    def modules(self) -> tuple[str, ...]:
        """Where the architecture is named, and where its class lies."""
        if self.pretrained is not None:
            return self.pretrained.modules
        architecture = models.ARCHITECTURES[self.architecture]
        return (models.ARCHITECTURES.modules()[self.architecture], architecture.model_class.__module__)


@dataclass(frozen=True)
class SystemSpec:
    name: str
    subject: SubjectSpec
    dictionary: DictionarySpec | None

    @property
    def budget(self) -> float | None:
        """The part of the experiment's that it gets, where the row says so."""
        return self.subject.budget if self.dictionary is None else None

    @property
    def splits_budget(self) -> bool:
        """Whether a share of the budget is its dictionaries', and its subject one of its own with what is left."""
        return self.dictionary is not None and self.dictionary.share is not None and not self.dictionary.on_top

    @property
    def solved_alone(self) -> bool:
        """Whether it is solved for an amount of its own, though it is not matched with the others."""
        on_top = self.dictionary is not None and self.dictionary.on_top and self.dictionary.share is not None
        return self.budget is not None or on_top


@dataclass(frozen=True)
class _Asked:
    """Where a subject is asked for. own: rows without a dictionary and their options; students: the subjects that wait
    for this one, as its own teacher or origin they would wait for ever."""

    row: str
    experiment: Experiment
    own: dict[str, dict[str, Any]]
    students: tuple[str, ...] = ()

    def of_another(self, name: str, student: str) -> SubjectSpec:
        """The subject row `name`, which `student` needs."""
        asked = dataclasses.replace(self, students=(*self.students, student))
        return _subject(RowName.of(name).subject, self.own[name], asked)


def system_specs(experiment: Experiment) -> list[SystemSpec]:
    """The rows of an experiment, checked. Raises BadInput with one line at the first row that cannot be."""
    names = {name: RowName.of(name) for name in experiment.systems}
    own = {name: experiment.systems[name] for name, said in names.items() if said.dictionary is None}
    specs = []
    for name, said in names.items():
        # A subject that is a row itself is trained once, for both rows, with that row's options.
        subject = _subject(said.subject, own.get(str(said.subject), {}), _Asked(name, experiment, own))
        dictionary = None
        if said.dictionary is not None:
            dictionary = dictionary_spec(said.dictionary, experiment.systems[name], name, subject.config, experiment)
        specs.append(SystemSpec(name, subject, dictionary))
    if experiment.baseline is not None and experiment.baseline not in experiment.systems:
        raise BadInput(f"baseline = {experiment.baseline!r}: {nearest(experiment.baseline, experiment.systems)}")
    for row, other in experiment.compared_with.items():
        for name in (row, other):
            if name not in experiment.systems:
                raise BadInput(f"compared_with: no row {name!r}; {nearest(name, experiment.systems)}")
    return specs


def _subject(part: Part, options: dict[str, Any], asked: _Asked) -> SubjectSpec:
    where, settings = f"systems.{asked.row}", together(part, options, asked.row)
    if is_pretrained(part.name):
        length = asked.experiment.corpus.sequence_length
        model, untrained = pretrained_model(part.name, settings, asked.row, length)
        training = asked.experiment.training
        return SubjectSpec(str(part), part.name, settings, training, untrained, pretrained=model)
    try:
        registered = models.ARCHITECTURES.named(part.name)
    except ValueError as error:
        raise BadInput(f"{where}: {error}, or hf:<folder or Hub id>") from None
    training = _overridden(asked.experiment.training, settings.pop("training", {}), f"{where}.training")
    settings.pop("variant", None)  # tells rows apart whose difference is no setting, such as how they are trained
    untrained = settings.pop("untrained", False)
    if not isinstance(untrained, bool):
        raise BadInput(f"{where}.untrained = {untrained!r}: must be true or false")
    budget = settings.pop("budget", None)
    if budget is not None and not (isinstance(budget, int | float) and budget > 0 and not isinstance(budget, bool)):
        raise BadInput(f"{where}.budget = {budget!r}: must be a number above 0, the part of the budget that it gets")
    dense = settings.pop("upcycle", None)
    allowed = [key for key in registered.config_class.settings() if key not in (*_OF_CORPUS, *registered.fixed)]
    for key in settings:
        if key not in allowed:
            known = [*allowed, "budget", "training", "untrained", "upcycle", "variant"]
            raise BadInput(f"{where}.{key}: unknown key; {nearest(key, known)}")
    try:
        registered.config(**settings)
    except ValueError as error:
        raise BadInput(f"{where}: {error}") from None
    teacher = None
    if training.teacher is not None and not untrained:
        teacher = _teacher(training.teacher, str(part), asked)
    spec = SubjectSpec(str(part), part.name, settings, training, untrained, teacher, budget=budget)
    return spec if dense is None else _upcycled(spec, dense, asked)


def _upcycled(spec: SubjectSpec, dense: Any, asked: _Asked) -> SubjectSpec:
    """The subject when it starts from the row `dense`."""
    where = f"systems.{asked.row}.upcycle = {dense!r}"
    if not isinstance(dense, str) or dense not in asked.own:
        raise BadInput(f"{where}: no subject row of this experiment; {nearest(str(dense), asked.own)}")
    if dense in (spec.name, *asked.students):
        raise BadInput(f"{where}: they would wait for each other; name a dense row that needs neither")
    if spec.untrained:
        raise BadInput(f"{where}: an untrained control starts at random; leave one of the two away")
    origin = asked.of_another(dense, spec.name)
    if not origin.trained_here:
        raise BadInput(f"{where}: that row is not trained here")
    try:
        settings = upcycling.completed(spec.architecture, spec.settings, origin.architecture, origin.settings)
    except ValueError as error:
        raise BadInput(f"{where}: {error}") from None
    return dataclasses.replace(spec, settings=settings, origin=origin)


def _teacher(name: str, student: str, asked: _Asked) -> SubjectSpec | Path:
    where = f"systems.{asked.row}.training.target.teacher"
    if name.startswith(foreign.PREFIX):
        return foreign.folder_of(name, where)
    if name not in asked.own:
        rows = [*asked.own, "hf:<folder or Hub id>"]
        raise BadInput(f"{where} = {name!r}: no subject row of this experiment; {nearest(name, rows)}")
    if name in (student, *asked.students):
        raise BadInput(
            f"{where} = {name!r}: {'it would teach itself' if name == student else 'they would teach each other'}; "
            f"give {name} a training.target of its own, such as {{kind: ce}}"
        )
    return asked.of_another(name, student)


def _overridden(base: TrainingConfig, options: Any, where: str) -> TrainingConfig:
    if not isinstance(options, dict):
        raise BadInput(f"{where} = {options!r}: must be a mapping")
    return validated(TrainingConfig, {**base.model_dump(), **options}, where=where)
