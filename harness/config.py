"""What an experiment file may say. Strict: what is unknown or impossible ends the run before anything trains."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from harness.corpus.config import CorpusConfig
from harness.errors import BadInput
from harness.reading import from_yaml, split_outside_brackets
from harness.training_config import LearningRateTrials, Strict, TrainingConfig

M = TypeVar("M", bound=BaseModel)

EXPERIMENTS = Path(__file__).parent / "experiments"


class EvaluationConfig(Strict):
    """What is measured on, and how the intervals are made."""

    sequences: int = Field(default=400, ge=1, description="Evaluation sequences that losses are computed on (at most).")
    codes_sequences: int = Field(
        default=64, ge=1, description="The first of them, whose codes are stored for unit metrics."
    )
    batch_sequences: int = Field(default=16, ge=1)
    resamples: int = Field(default=1000, ge=100, description="Bootstrap resamples behind every interval.")

    @model_validator(mode="after")
    def _codes_of_what_is_read(self) -> EvaluationConfig:
        if self.codes_sequences > self.sequences:
            raise ValueError(f"codes_sequences {self.codes_sequences} exceeds sequences {self.sequences}")
        return self


class BudgetConfig(Strict):
    """What is equal in every system that is compared (see harness/budget.py)."""

    matched: Literal["training_flops", "active_parameters", "forward_flops", "tokens", "none"] = "training_flops"
    tolerance: float = Field(default=0.02, gt=0, lt=1, description="Largest relative difference that counts as equal.")
    amount: float | None = Field(
        default=None,
        gt=0,
        description="What each gets. Default: the most that a row asks, or what the baseline has.",
    )
    free: dict[str, str] = Field(
        default_factory=dict, description="Row -> what is solved for it: tokens, or one of its sizes, such as d_ff."
    )


class Experiment(Strict):
    """One comparison: corpus, budget, systems, seeds, metrics. It yields one table."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")
    description: str = ""
    corpus: CorpusConfig = CorpusConfig()
    budget: BudgetConfig = BudgetConfig()
    training: TrainingConfig = TrainingConfig()
    learning_rate_trials: LearningRateTrials | None = None
    dictionary_training: dict[str, Any] = Field(default_factory=dict)
    evaluation: EvaluationConfig = EvaluationConfig()
    systems: dict[str, dict[str, Any]] = Field(min_length=1)
    references: tuple[str, ...] = ()
    metrics: dict[str, dict[str, Any]] = Field(min_length=1)
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(0,), min_length=1)
    baseline: str | None = Field(
        default=None, description="The row that the others are compared with, paired by document."
    )
    scaling: tuple[str, ...] = Field(
        default=(),
        description="Rows of several sizes whose loss against training FLOPs is fitted (harness/scaling.py).",
    )
    tracking: Literal["mlflow", "off"] = "mlflow"

    @field_validator("systems", "metrics", mode="before")
    @classmethod
    def _names_alone_mean_defaults(cls, value: Any) -> Any:
        if isinstance(value, list):
            twice = [name for place, name in enumerate(value) if name in value[:place]]
            if twice:
                raise ValueError(f"{twice[0]!r} stands twice")
            return {name: {} for name in value}
        if isinstance(value, Mapping):
            return {name: {} if options is None else options for name, options in value.items()}
        return value

    @field_validator("tracking", mode="before")
    @classmethod
    def _off_is_false_in_yaml(cls, value: Any) -> Any:
        return "off" if value is False else value

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) != len(value):
            raise ValueError("a seed stands twice")
        return value


def load(name_or_path: str, overrides: list[str] | None = None) -> Experiment:
    """Reads an experiment by its name (a file in harness/experiments) or path, with `a.b=value` overrides applied."""
    raw = _read(name_or_path)
    for override in overrides or []:
        _apply(raw, override)
    return validated(Experiment, raw, where="")


def validated(model: type[M], raw: Any, *, where: str) -> M:
    """`raw` as `model`; the first thing wrong as one line that names key, value, what is allowed, the nearest name."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise BadInput(_one_line(error, model, where)) from None


def nearest(name: str, allowed: list[str]) -> str:
    """`did you mean X? ` or nothing, and all that is allowed."""
    close = difflib.get_close_matches(name, allowed, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"{hint}(allowed: {', '.join(sorted(allowed))})"


def experiment_names() -> list[str]:
    return sorted(path.stem for path in EXPERIMENTS.glob("*.yaml"))


def _read(name_or_path: str) -> dict[str, Any]:
    path = EXPERIMENTS / f"{name_or_path}.yaml"
    if not path.is_file():
        path = Path(name_or_path)
        if path.suffix not in (".yaml", ".yml"):
            raise BadInput(
                f"no experiment {name_or_path!r}: {nearest(name_or_path, experiment_names())}, or a .yaml path"
            )
        if not path.is_file():
            raise BadInput(f"no such experiment file: {name_or_path}")
    try:
        raw = from_yaml(path.read_text(encoding="utf-8"))
    except yaml.constructor.ConstructorError as error:
        raise BadInput(f"{path}: {error.problem}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise BadInput(f"{path}: an experiment is a mapping, this is {type(raw).__name__}")
    raw.setdefault("name", path.stem)
    return raw


def _apply(raw: dict[str, Any], override: str) -> None:
    """`systems.peer.n_experts=65536` into the raw mapping. Dots and `=` inside a row name's brackets are part of it."""
    key, *rest = split_outside_brackets(override, "=")
    text = "=".join(rest)
    if not rest or not key:
        raise BadInput(f"--set {override!r}: write key.subkey=value")
    try:
        value = from_yaml(text)
    except yaml.YAMLError:
        raise BadInput(f"--set {override!r}: the value is not YAML") from None
    target: Any = raw
    *parents, last = split_outside_brackets(key, ".")
    for position, parent in enumerate(parents):
        if isinstance(target.get(parent), list):
            target[parent] = {name: {} for name in target[parent]}
        if target.get(parent) is None:
            # A new row or metric must be written in the file: a typing slip must not add a system.
            if position == 1 and parents[0] in ("systems", "metrics"):
                raise BadInput(f"--set {override!r}: {parents[0]}.{parent} is not in this experiment: "
                               f"{nearest(parent, list(target))}")  # fmt: skip
            target[parent] = {}
        target = target[parent]
        if not isinstance(target, dict):
            raise BadInput(f"--set {override!r}: {'.'.join(parents[: position + 1])} is {target!r}, it has no keys")
    target[last] = value


def _one_line(error: ValidationError, model: type[BaseModel], where: str) -> str:
    # A typing slip in a required key gives two errors: the unknown key says more than the missing one.
    first = next((e for e in error.errors() if e["type"] == "extra_forbidden"), error.errors()[0])
    owner, path = _resolved(model, [str(part) for part in first["loc"]])
    key = ".".join([where, *path] if where else path) or model.__name__
    if first["type"] == "extra_forbidden":
        return f"{key}: unknown key; {nearest(path[-1], list(owner.model_fields))}"
    if first["type"] == "union_tag_invalid":
        context = first.get("ctx", {})
        known = [tag.strip("' ") for tag in context["expected_tags"].split(",")]
        return f"{key}.kind = {context['tag']!r}: {nearest(context['tag'], known)}"
    if first["type"] == "union_tag_not_found":
        return f"{key} = {first['input']!r}: must be a mapping that names a kind"
    message = first["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "missing":
        return f"{key}: {message}{more}"
    shown = repr(first["input"])
    return f"{key} = {shown if len(shown) < 80 else shown[:77] + '...'}: {message}{more}"


def _resolved(model: type[BaseModel], path: list[str]) -> tuple[type[BaseModel], list[str]]:
    """The model that the last part of `path` belongs to, and the path as the file writes it: in a choice by `kind`,
    pydantic's path names the kind that was chosen."""
    written, choices = [], []
    for place, part in enumerate(path):
        tagged = [choice for choice in choices if part in get_args(choice.model_fields["kind"].annotation)]
        choices = []
        if tagged:
            model = tagged[0]
            continue
        written.append(part)
        field = model.model_fields.get(part)
        inner = _models_in(field.annotation) if field else []
        if len(inner) > 1:
            choices = [choice for choice in inner if "kind" in choice.model_fields]
        elif inner and place < len(path) - 1:
            model = inner[0]
    return model, written


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [model for argument in get_args(annotation) for model in _models_in(argument)]
