"""Rows of the table: what a name like `dense[d_ff=1024]+topk[k=16]` means, and whether it can be.

A row is `subject` or `subject+dictionary`. Settings stand in brackets behind either, or under the row in the experiment
file, where they belong to the subject of a row without `+` and to the dictionary of a row with one.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Literal

import yaml
from pydantic import Field, create_model

import models
import saes
from harness.config import Experiment, nearest, validated
from harness.decomposition import Point, Site
from harness.errors import BadInput
from harness.training_config import Strict, TrainingConfig
from saes.trainer import TrainSettings
from saes.training_dictionary import DictionaryConfig

# Fixed by the corpus, so no setting of a system.
_OF_CORPUS = ("vocab_size", "max_position_embeddings", "bos_token_id", "eos_token_id", "pad_token_id")


@dataclass(frozen=True)
class SubjectSpec:
    """A model to train: architecture (name in the registry of models), its settings, how it is trained."""

    name: str
    architecture: str
    settings: dict[str, Any]
    training: TrainingConfig

    @property
    def module(self) -> str:
        return models.architecture(self.architecture).model_class.__module__


@dataclass(frozen=True)
class DictionarySpec:
    """Dictionaries to train on a subject: kind, configuration of each, the sites that get one, how they are trained."""

    kind: str
    config: DictionaryConfig
    sites: tuple[Site, ...]
    settings: TrainSettings

    @property
    def module(self) -> str:
        return type(self.config).__module__


@dataclass(frozen=True)
class SystemSpec:
    name: str
    subject: SubjectSpec
    dictionary: DictionarySpec | None


class SiteOptions(Strict):
    """Where dictionaries are grafted."""

    point: Point | None = None  # mlp for what learns an output from an input, mlp_out for the others
    layers: Literal["all"] | tuple[int, ...] = "all"


def subject_names() -> list[str]:
    _load_entry_points()
    return list(models.ARCHITECTURES)


def dictionary_names() -> list[str]:
    _load_entry_points()
    return list(saes.DICTIONARIES)


def system_specs(experiment: Experiment) -> list[SystemSpec]:
    """The rows of an experiment, checked. Raises BadInput with one line at the first row that cannot be."""
    _load_entry_points()
    own_options = {name: options for name, options in experiment.systems.items() if "+" not in _bare(name)}
    specs = [_system(name, options, own_options, experiment) for name, options in experiment.systems.items()]
    if experiment.baseline is not None and experiment.baseline not in experiment.systems:
        raise BadInput(f"baseline = {experiment.baseline!r}: {nearest(experiment.baseline, list(experiment.systems))}")
    return specs


def _system(
    name: str, options: dict[str, Any], own_options: dict[str, dict[str, Any]], experiment: Experiment
) -> SystemSpec:
    subject_text, plus, dictionary_text = _split(name)
    # A subject that is a row itself is trained once, for both rows, with that row's options.
    subject = _subject(subject_text, own_options.get(subject_text, {}) if plus else options, name, experiment)
    dictionary = _dictionary(dictionary_text, options, name, subject, experiment) if plus else None
    return SystemSpec(name, subject, dictionary)


def _subject(text: str, options: dict[str, Any], row: str, experiment: Experiment) -> SubjectSpec:
    architecture, settings = _with_brackets(text, options, row)
    if architecture not in models.ARCHITECTURES:
        raise BadInput(f"systems.{row}: no subject {architecture!r}; {nearest(architecture, subject_names())}")
    training = _overridden(experiment.training, settings.pop("training", {}), f"systems.{row}.training")
    registered = models.architecture(architecture)
    allowed = [key for key in registered.config_class.settings() if key not in (*_OF_CORPUS, *registered.fixed)]
    for key in settings:
        if key not in allowed:
            raise BadInput(f"systems.{row}.{key}: unknown key; {nearest(key, [*allowed, 'training'])}")
    try:
        registered.config(**settings)
    except ValueError as error:
        raise BadInput(f"systems.{row}: {error}") from None
    return SubjectSpec(text, architecture, settings, training)


def _dictionary(
    text: str, options: dict[str, Any], row: str, subject: SubjectSpec, experiment: Experiment
) -> DictionarySpec:
    kind, settings = _with_brackets(text, options, row)
    if kind not in saes.DICTIONARIES:
        raise BadInput(f"systems.{row}: no dictionary {kind!r}; {nearest(kind, dictionary_names())}")
    config_class = saes.config_class(kind)
    known = {field.name: field for field in dataclasses.fields(config_class)}
    fields: dict[str, Any] = {key: (_type_of(config_class, key), _default(field)) for key, field in known.items()}
    fields["training"] = (dict[str, Any], Field(default_factory=dict))
    strict = create_model(f"{kind} options", __base__=SiteOptions, **fields)
    checked = validated(strict, settings, where=f"systems.{row}")
    training = {**experiment.dictionary_training, **getattr(checked, "training")}  # noqa: B009 (a created model)
    try:
        config = config_class(**{key: getattr(checked, key) for key in known})
    except ValueError as error:
        raise BadInput(f"systems.{row}: {error}") from None
    sites = _sites(checked, config.transcodes, subject, row)
    return DictionarySpec(kind, config, sites, _train_settings(training, row))


def _sites(options: SiteOptions, transcodes: bool, subject: SubjectSpec, row: str) -> tuple[Site, ...]:
    n_layers = models.architecture(subject.architecture).config(**subject.settings).n_layers
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


def _split(name: str) -> tuple[str, str, str]:
    depth = 0
    for index, character in enumerate(name):
        depth += (character == "[") - (character == "]")
        if character == "+" and depth == 0:
            return name[:index], "+", name[index + 1 :]
    return name, "", ""


def _bare(name: str) -> str:
    """The name without what stands in brackets."""
    kept, depth = "", 0
    for character in name:
        depth += character == "["
        kept += character if depth == 0 else ""
        depth -= character == "]"
    return kept


def _with_brackets(text: str, options: dict[str, Any], row: str) -> tuple[str, dict[str, Any]]:
    """`topk[k=16]` and its options → `topk` and both kinds of settings together."""
    name, bracket, inside = text.partition("[")
    if bracket and not inside.endswith("]"):
        raise BadInput(f"systems.{row}: the bracket is not closed; write {name}[key=value,...]")
    settings = dict(options)
    for part in filter(None, inside[:-1].split(",")) if bracket else ():
        key, equals, value = part.partition("=")
        if not equals:
            raise BadInput(f"systems.{row}: {part!r} in brackets is not key=value")
        if key.strip() in options:
            raise BadInput(f"systems.{row}: {key.strip()} stands in the brackets and below the name")
        settings[key.strip()] = yaml.safe_load(value)
    return name, settings


def _type_of(cls: type, key: str) -> Any:
    import typing

    return typing.get_type_hints(cls)[key]


def _default(field: dataclasses.Field[Any]) -> Any:
    return ... if field.default is dataclasses.MISSING else field.default


_loaded = False


def _load_entry_points() -> None:
    """Architectures and dictionaries of installed packages: importing the module they name registers them."""
    global _loaded
    if not _loaded:
        for point in entry_points(group="harness.systems"):
            import_module(point.value)
        _loaded = True
