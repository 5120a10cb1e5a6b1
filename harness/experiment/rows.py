"""Rows of the table: what a name like `dense[d_ff=1024]+topk[k=16]` means, and whether it can be.

A row is `subject` or `subject+dictionary`. Settings stand in brackets behind either, or under the row in the experiment
file, where they belong to the subject of a row without `+` and to the dictionary of a row with one.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from pydantic import Field, create_model

import models
import saes
from harness.base.errors import BadInput
from harness.base.reading import name_and_settings, subject_and_dictionary
from harness.base.settings import Strict, validated
from harness.experiment.schema import Experiment
from harness.systems.system import Point, Site
from harness.training import teachers, upcycling
from harness.training.config import TrainingConfig
from kernels.registry import nearest
from saes.pretrained import Pretrained
from saes.settings import Objective
from saes.trainer import TrainSettings
from saes.training_dictionary import DictionaryConfig

# Rows `subject+pretrained`: dictionaries from a folder or a release, not trained here.
PRETRAINED = "pretrained"
S = TypeVar("S", bound="SiteOptions")
C = TypeVar("C", bound="DictionaryConfig | Pretrained")

# Fixed by the corpus, so no setting of a system.
_OF_CORPUS = ("vocab_size", "max_position_embeddings", "bos_token_id", "eos_token_id", "pad_token_id")


@dataclass(frozen=True)
class SubjectSpec:
    """A model to train: architecture (name in the registry of models), its settings, how it is trained.

    untrained: a control that stays as it was initialised. teacher: what its target names: another subject of the
    experiment, or the folder of a Hugging Face model. origin: the trained dense subject that it starts from.
    """

    name: str
    architecture: str
    settings: dict[str, Any]
    training: TrainingConfig
    untrained: bool = False
    teacher: SubjectSpec | Path | None = None
    origin: SubjectSpec | None = None

    @property
    def modules(self) -> tuple[str, ...]:
        """Where the architecture is named, and where its class lies."""
        architecture = models.ARCHITECTURES[self.architecture]
        return (models.ARCHITECTURES.modules()[self.architecture], architecture.model_class.__module__)


@dataclass(frozen=True)
class DictionarySpec:
    """Dictionaries on a subject: kind, configuration of each (or where they come from), the sites that get one, how
    they are trained."""

    kind: str
    config: DictionaryConfig | Pretrained
    sites: tuple[Site, ...]
    settings: TrainSettings


@dataclass(frozen=True)
class SystemSpec:
    name: str
    subject: SubjectSpec
    dictionary: DictionarySpec | None


class SiteOptions(Strict):
    """Where dictionaries are grafted."""

    point: Point | None = None  # mlp for what learns an output from an input, mlp_out for the others
    layers: Literal["all"] | tuple[int, ...] = "all"


class TrainedHere(SiteOptions):
    """How the dictionaries of one row are trained, where that differs from the experiment's `dictionary_training`."""

    objective: Objective | None = None  # short for training: {objective: ...}, so that it can stand in brackets
    training: dict[str, Any] = Field(default_factory=dict)


def system_specs(experiment: Experiment) -> list[SystemSpec]:
    """The rows of an experiment, checked. Raises BadInput with one line at the first row that cannot be."""
    own_options = {
        name: options for name, options in experiment.systems.items() if subject_and_dictionary(name)[1] is None
    }
    specs = [_system(name, options, own_options, experiment) for name, options in experiment.systems.items()]
    if experiment.baseline is not None and experiment.baseline not in experiment.systems:
        raise BadInput(f"baseline = {experiment.baseline!r}: {nearest(experiment.baseline, list(experiment.systems))}")
    return specs


def _system(
    name: str, options: dict[str, Any], own_options: dict[str, dict[str, Any]], experiment: Experiment
) -> SystemSpec:
    subject_text, dictionary_text = subject_and_dictionary(name)
    # A subject that is a row itself is trained once, for both rows, with that row's options.
    own = options if dictionary_text is None else own_options.get(subject_text, {})
    subject = _subject(subject_text, own, name, experiment, own_options)
    dictionary = None
    if dictionary_text is not None:
        dictionary = _dictionary(dictionary_text, options, name, subject, experiment)
    return SystemSpec(name, subject, dictionary)


def _subject(
    text: str,
    options: dict[str, Any],
    row: str,
    experiment: Experiment,
    own_options: dict[str, dict[str, Any]],
    students: tuple[str, ...] = (),
) -> SubjectSpec:
    architecture, settings = _with_brackets(text, options, row)
    try:
        registered = models.ARCHITECTURES.named(architecture)
    except ValueError as error:
        raise BadInput(f"systems.{row}: {error}") from None
    training = _overridden(experiment.training, settings.pop("training", {}), f"systems.{row}.training")
    settings.pop("variant", None)  # tells rows apart whose difference is no setting, such as how they are trained
    untrained = settings.pop("untrained", False)
    if not isinstance(untrained, bool):
        raise BadInput(f"systems.{row}.untrained = {untrained!r}: must be true or false")
    dense = settings.pop("upcycle", None)
    allowed = [key for key in registered.config_class.settings() if key not in (*_OF_CORPUS, *registered.fixed)]
    for key in settings:
        if key not in allowed:
            known = [*allowed, "training", "untrained", "upcycle", "variant"]
            raise BadInput(f"systems.{row}.{key}: unknown key; {nearest(key, known)}")
    try:
        registered.config(**settings)
    except ValueError as error:
        raise BadInput(f"systems.{row}: {error}") from None
    teacher = None
    if training.teacher is not None and not untrained:
        teacher = _teacher(training.teacher, text, row, experiment, own_options, students)
    spec = SubjectSpec(text, architecture, settings, training, untrained, teacher)
    return spec if dense is None else _upcycled(spec, dense, row, experiment, own_options, students)


def _upcycled(
    spec: SubjectSpec,
    dense: Any,
    row: str,
    experiment: Experiment,
    own_options: dict[str, dict[str, Any]],
    students: tuple[str, ...],
) -> SubjectSpec:
    """The subject when it starts from the row `dense`."""
    where = f"systems.{row}.upcycle = {dense!r}"
    if not isinstance(dense, str) or dense not in own_options:
        raise BadInput(f"{where}: no subject row of this experiment; {nearest(str(dense), list(own_options))}")
    if dense in (spec.name, *students):
        raise BadInput(f"{where}: they would wait for each other; name a dense row that needs neither")
    if spec.untrained:
        raise BadInput(f"{where}: an untrained control starts at random; leave one of the two away")
    origin = _subject(dense, own_options[dense], row, experiment, own_options, (*students, spec.name))
    if origin.untrained:
        raise BadInput(f"{where}: that row is not trained")
    try:
        settings = upcycling.completed(spec.architecture, spec.settings, origin.architecture, origin.settings)
    except ValueError as error:
        raise BadInput(f"{where}: {error}") from None
    return dataclasses.replace(spec, settings=settings, origin=origin)


def _teacher(
    name: str,
    student: str,
    row: str,
    experiment: Experiment,
    own_options: dict[str, dict[str, Any]],
    students: tuple[str, ...],
) -> SubjectSpec | Path:
    where = f"systems.{row}.training.target.teacher"
    if name.startswith(teachers.PREFIX):
        return teachers.folder_of(name, where)
    if name not in own_options:
        rows = [*own_options, "hf:<folder or Hub id>"]
        raise BadInput(f"{where} = {name!r}: no subject row of this experiment; {nearest(name, rows)}")
    if name in (student, *students):
        raise BadInput(
            f"{where} = {name!r}: {'it would teach itself' if name == student else 'they would teach each other'}; "
            f"give {name} a training.target of its own, such as {{kind: ce}}"
        )
    return _subject(name, own_options[name], row, experiment, own_options, (*students, student))


def _dictionary(
    text: str, options: dict[str, Any], row: str, subject: SubjectSpec, experiment: Experiment
) -> DictionarySpec:
    kind, settings = _with_brackets(text, options, row)
    if kind == PRETRAINED:
        return _pretrained(settings, row, subject)
    if kind not in saes.DICTIONARIES:
        raise BadInput(f"systems.{row}: no dictionary {kind!r}; {nearest(kind, [*saes.DICTIONARIES, PRETRAINED])}")
    try:
        config_class = saes.DICTIONARIES.named(kind)
    except ValueError as error:
        raise BadInput(f"systems.{row}: {error}") from None
    checked = _checked(TrainedHere, config_class, settings, row)
    training = {**experiment.dictionary_training, **checked.training}
    if checked.objective is not None:
        training["objective"] = checked.objective
    config = _built(config_class, checked, row)
    sites = _sites(checked, config.transcodes, subject, row)
    return DictionarySpec(kind, config, sites, _train_settings(training, row))


def _pretrained(settings: dict[str, Any], row: str, subject: SubjectSpec) -> DictionarySpec:
    checked = _checked(SiteOptions, Pretrained, settings, row)
    source = _built(Pretrained, checked, row)
    sites = _sites(checked, checked.point == "mlp", subject, row)
    width = models.ARCHITECTURES[subject.architecture].config(**subject.settings).d_model
    try:
        source.check_layers(len(sites))
        transcodes = {source.check_folder(site.layer, width) for site in sites}
        source = source.with_contents([site.layer for site in sites])
    except (ValueError, OSError) as error:
        raise BadInput(f"systems.{row}: {error}") from None
    if source.path is not None and transcodes != {checked.point == "mlp"}:
        raise BadInput(
            f"systems.{row}.point = {checked.point!r}: a transcoder reads and writes at 'mlp', an autoencoder does not"
        )
    return DictionarySpec(PRETRAINED, source, sites, TrainSettings())


def _checked(base: type[S], cls: type, settings: dict[str, Any], row: str) -> S:
    """The settings of a row as `base` with the options of the dataclass `cls` beside its own."""
    known = {field.name: field for field in dataclasses.fields(cls) if field.init}
    fields: dict[str, Any] = {key: (_type_of(cls, key), _default(field)) for key, field in known.items()}
    return validated(create_model(f"{cls.__name__} options", __base__=base, **fields), settings, where=f"systems.{row}")


def _built(cls: type[C], checked: SiteOptions, row: str) -> C:
    known = [field.name for field in dataclasses.fields(cast(Any, cls)) if field.init]
    try:
        return cls(**{key: getattr(checked, key) for key in known})
    except ValueError as error:
        raise BadInput(f"systems.{row}: {error}") from None


def _sites(options: SiteOptions, transcodes: bool, subject: SubjectSpec, row: str) -> tuple[Site, ...]:
    n_layers = models.ARCHITECTURES[subject.architecture].config(**subject.settings).n_layers
    layers = tuple(range(n_layers)) if options.layers == "all" else options.layers
    for layer in layers:
        if not 0 <= layer < n_layers:
            raise BadInput(f"systems.{row}.layers = {layer}: {subject.name} has layers 0 to {n_layers - 1}")
    if len(set(layers)) != len(layers) or not layers:
        raise BadInput(f"systems.{row}.layers = {list(layers)}: name each layer once, and at least one")
    point: Point = options.point or ("mlp" if transcodes else "mlp_out")
    if (point == "mlp") != transcodes:
        kind = (
            "a transcoder reads and writes at 'mlp'" if transcodes else "an autoencoder has no output to learn at 'mlp'"
        )
        others = "mlp" if transcodes else "mlp_out or resid_post"
        raise BadInput(f"systems.{row}.point = {point!r}: {kind}; use {others}")
    return tuple(Site(layer, point) for layer in sorted(layers))


def _train_settings(options: dict[str, Any], row: str) -> TrainSettings:
    known = {field.name: field for field in dataclasses.fields(TrainSettings) if field.name != "seed"}
    fields: dict[str, Any] = {key: (_type_of(TrainSettings, key), _default(field)) for key, field in known.items()}
    strict = create_model("dictionary training", __base__=Strict, **fields)
    checked = validated(strict, options, where=f"systems.{row}.training (or dictionary_training)")
    try:
        return TrainSettings(**{key: getattr(checked, key) for key in known})
    except ValueError as error:
        raise BadInput(f"systems.{row}.training (or dictionary_training): {error}") from None


def _overridden(base: TrainingConfig, options: Any, where: str) -> TrainingConfig:
    if not isinstance(options, dict):
        raise BadInput(f"{where} = {options!r}: must be a mapping")
    return validated(TrainingConfig, {**base.model_dump(), **options}, where=where)


def _with_brackets(text: str, options: dict[str, Any], row: str) -> tuple[str, dict[str, Any]]:
    """`topk[k=16]` and its options → `topk` and both kinds of settings together."""
    name, settings = name_and_settings(text, row)
    for key in settings:
        if key in options:
            raise BadInput(f"systems.{row}: {key} stands in the brackets and below the name")
    return name, {**options, **settings}


def _type_of(cls: type, key: str) -> Any:
    import typing

    return typing.get_type_hints(cls)[key]


def _default(field: dataclasses.Field[Any]) -> Any:
    return ... if field.default is dataclasses.MISSING else field.default
