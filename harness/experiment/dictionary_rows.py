"""The dictionaries of a row: what `+topk[k=16,layers=[0,1]]` and the options below it mean, and whether it can be."""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from pydantic import Field, create_model

import saes
from harness.base.errors import BadInput
from harness.base.row_name import Part, RowName, together
from harness.base.settings import Strict, validated
from harness.experiment.pretrained_rows import PretrainedShape
from harness.systems.system import Point, Site
from kernels.registry import nearest
from saes.claims import Host
from saes.pretrained import Pretrained
from saes.settings import DictionaryObjective
from saes.trainer import TrainSettings
from saes.training_dictionary import DictionaryConfig

if TYPE_CHECKING:
    from harness.experiment.schema import Experiment
    from models.config import TrunkConfig

# Rows `subject+pretrained`: dictionaries from a folder or a release, not trained here.
PRETRAINED = "pretrained"
S = TypeVar("S", bound="SiteOptions")
C = TypeVar("C", bound="DictionaryConfig | Pretrained")


@dataclass(frozen=True)
class DictionarySpec:
    """Dictionaries on a subject: kind, configuration of each (or where they come from), the sites that get one, how
    they are trained. share: of the budget, which is theirs; on_top: whether that comes on top of their subject's."""

    kind: str
    config: DictionaryConfig | Pretrained
    sites: tuple[Site, ...]
    settings: TrainSettings
    share: float | None = None
    on_top: bool = False


class SiteOptions(Strict):
    """Where dictionaries are grafted."""

    point: Point | None = None  # mlp for what learns an output from an input, mlp_out for the others
    layers: Literal["all"] | tuple[int, ...] = "all"


class TrainedHere(SiteOptions):
    """How the dictionaries of one row are trained, where that differs from the experiment's `dictionary_training`."""

    objective: DictionaryObjective | None = (
        None  # short for training: {objective: ...}, so that it can stand in brackets
    )
    training: dict[str, Any] = Field(default_factory=dict)
    share: float | None = Field(default=None, gt=0, lt=1, description="Of the budget, for the dictionaries.")
    on_top: bool = Field(default=False, description="Not out of the budget, which the subject then gets whole.")


def dictionary_spec(
    part: Part, options: dict[str, Any], row: str, subject: TrunkConfig | PretrainedShape, experiment: Experiment
) -> DictionarySpec:
    """The dictionaries of a row, checked. `subject`: the configuration of what they are grafted on. Raises BadInput."""
    kind, settings = part.name, together(part, options, row)
    if kind == PRETRAINED:
        return _pretrained(settings, row, subject, experiment)
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
    share = checked.share
    if share is None and not checked.on_top and experiment.search is not None:
        share = next(iter(experiment.search.dictionary_shares), None)  # the others are tried too
    if share is not None and experiment.budget.matched != "training_flops":
        raise BadInput(
            f"systems.{row}.share: only where training_flops are matched, and here {experiment.budget.matched}"
        )
    return DictionarySpec(kind, config, sites, _train_settings(training, row), share, checked.on_top)


def _pretrained(
    settings: dict[str, Any], row: str, subject: TrunkConfig | PretrainedShape, experiment: Experiment
) -> DictionarySpec:
    """What the row leaves open, its dictionary says: the point and, of a single one, the layer."""
    checked = _checked(SiteOptions, Pretrained, settings, row)
    source = _built(Pretrained, checked, row)
    host = _host(row, subject, experiment)
    try:
        source.check_listed(host)
        said = source.said_place()
        layers = checked.layers
        if layers == "all" and said is not None:
            layers = (said.layer,)
        first = 0 if layers == "all" else min(layers, default=0)
        if said is None:
            said = source.claims(first).place()
        transcodes = source.is_transcoder(first)
        point = checked.point or (said.point if said is not None else None)
        if said is not None and not 0 <= said.layer < subject.n_layers:
            source.check(first, said.point, host)  # which says where it was trained
        chosen = checked.model_copy(update={"layers": layers, "point": point})
        sites = _sites(chosen, transcodes, subject, row)
        source.check_layers([site.layer for site in sites])
        for site in sites:
            source.check(site.layer, site.point, host)
        source = source.with_contents([site.layer for site in sites])
    except (ValueError, OSError) as error:
        raise BadInput(f"systems.{row}: {error}") from None
    return DictionarySpec(PRETRAINED, source, sites, TrainSettings())


def _host(row: str, subject: TrunkConfig | PretrainedShape, experiment: Experiment) -> Host:
    length = experiment.corpus.sequence_length
    if isinstance(subject, PretrainedShape):
        return Host(subject.name, subject.d_model, subject.n_layers, length, subject.dtype, subject.centres)
    return Host(RowName.of(row).subject.name, subject.d_model, subject.n_layers, length)


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


def _sites(
    options: SiteOptions, transcodes: bool, subject: TrunkConfig | PretrainedShape, row: str
) -> tuple[Site, ...]:
    n_layers = subject.n_layers
    layers = tuple(range(n_layers)) if options.layers == "all" else options.layers
    for layer in layers:
        if not 0 <= layer < n_layers:
            raise BadInput(f"systems.{row}.layers = {layer}: the subject has layers 0 to {n_layers - 1}")
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


def _type_of(cls: type, key: str) -> Any:
    return typing.get_type_hints(cls)[key]


def _default(field: dataclasses.Field[Any]) -> Any:
    return ... if field.default is dataclasses.MISSING else field.default
