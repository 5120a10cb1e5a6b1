"""What an experiment file may say. Strict: what is unknown or impossible ends the run before anything trains."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, field_validator, model_validator

from harness.base.errors import BadInput
from harness.base.reading import from_yaml, split_outside_brackets
from harness.base.settings import Strict, validated
from harness.corpus.config import AnyCorpus
from harness.training.config import TrainingConfig
from kernels.registry import nearest

EXPERIMENTS = Path(__file__).parent


class EvaluationConfig(Strict):
    """What is measured on, and how the intervals are made."""

    sequences: int = Field(default=400, ge=1, description="Evaluation sequences that losses are computed on (at most).")
    codes_sequences: int = Field(
        default=64, ge=1, description="The first of them, whose codes are stored for unit metrics."
    )
    batch_sequences: int = Field(default=16, ge=1)
    resamples: int = Field(default=1000, ge=100, description="Bootstrap resamples behind every interval.")
    unit_reports: int = Field(default=48, ge=0, description="Units of every layer that reports describe; 0: none.")

    @model_validator(mode="after")
    def _codes_of_what_is_read(self) -> EvaluationConfig:
        if self.codes_sequences > self.sequences:
            raise ValueError(f"codes_sequences {self.codes_sequences} exceeds sequences {self.sequences}")
        return self


class BudgetConfig(Strict):
    """What is equal in every system that is compared (see harness/experiment/budget.py)."""

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


Factor = Annotated[float, Field(gt=0)]


class SearchConfig(Strict):
    """Short trainings that choose, on dev, the shape of every system and its learning rates: equally many for each."""

    share: float = Field(default=0.25, gt=0, le=1, description="Of what a row gets, what each of its trials gets.")
    seeds: int = Field(default=1, ge=1, description="Trainings of each trial, whose mean counts.")
    rates: tuple[Factor, ...] = Field(
        default=(0.5, 1.0, 2.0), min_length=1, description="Factors on all learning rates, tried with the best shape."
    )
    shapes: dict[str, tuple[dict[str, Any], ...]] = Field(
        default_factory=dict, description="Row -> settings that are tried for it. As many for every row."
    )
    dictionary_shares: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        default=(), description="Parts of the budget that are tried for a row's dictionaries."
    )
    dictionary_rates: tuple[Factor, ...] = Field(
        default=(1.0,), min_length=1, description="Factors on the dictionaries' learning rate, at the best share."
    )

    @model_validator(mode="after")
    def _as_many_for_every_row(self) -> SearchConfig:
        counts = {row: len(shapes) for row, shapes in self.shapes.items()}
        if len(set(counts.values())) > 1:
            raise ValueError(f"shapes: every row gets as many, these differ: {counts}")
        if 0 in counts.values():
            raise ValueError("shapes: a row needs at least one")
        return self


class Experiment(Strict):
    """One comparison: corpus, budget, systems, seeds, metrics. It yields one table."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")
    description: str = ""
    corpus: AnyCorpus = Field(default_factory=dict, validate_default=True)
    budget: BudgetConfig = BudgetConfig()
    training: TrainingConfig = TrainingConfig()
    search: SearchConfig | None = None
    dictionary_training: dict[str, Any] = Field(default_factory=dict)
    evaluation: EvaluationConfig = EvaluationConfig()
    systems: dict[str, dict[str, Any]] = Field(min_length=1)
    references: tuple[str, ...] = ()
    metrics: dict[str, dict[str, Any]] = Field(min_length=1)
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(0,), min_length=1)
    baseline: str | None = Field(
        default=None, description="The row that the others are compared with, paired by document."
    )
    compared_with: dict[str, str] = Field(
        default_factory=dict, description="Row -> the row that it is compared with, where that is not the baseline."
    )
    headline: tuple[str, ...] = Field(
        default=("loss/spliced_bits_per_byte",),
        description="Figures whose differences from the baseline get a verdict, where there are several seeds.",
    )
    scaling: tuple[str, ...] = Field(
        default=(),
        description="Rows of several sizes whose loss against training FLOPs is fitted (harness/tables/scaling.py).",
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
    """Reads an experiment by its name (a file in harness/experiment) or path, with `a.b=value` overrides applied."""
    raw = _read(name_or_path)
    for override in overrides or []:
        _apply(raw, override)
    return validated(Experiment, raw, where="")


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
