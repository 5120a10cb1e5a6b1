"""Budgets: what every system of an experiment takes, before anything is trained, and how they are made equal.

What is matched (`budget.matched`):

- training_flops (default): all that a system's training takes: subject, teacher, collecting activations, dictionaries.
  What is solved is how many tokens it trains on: the subject of a row without a dictionary, the dictionaries of a row
  with one. Sizes stay what the file says, so this is the least that has to give way, and it is fine enough for any
  tolerance. Every row gets what the dearest asks for, so that none trains on less than the file says.
- active_parameters, forward_flops: of the subjects. What is solved is a size: d_ff of a dense model, the number of
  active experts. Dictionaries come on top and are reported.
- tokens: that the subjects train on.
- none: nothing.

`budget.free` names another free quantity for a row. What a row itself states is not free. Not matched, and said so in
the table: what another row is made of (a teacher, the dense row that one is upcycled from; in training_flops also the
subject of a dictionary row), the rows of the scaling curve, untrained controls, and dictionaries that were trained
elsewhere. Learning-rate trials are counted by themselves.

Sizes are those of the corpus's full vocabulary; a corpus too small to fill it makes all systems cheaper alike.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

import models
from harness.base.errors import BadInput
from harness.experiment.dictionary_rows import DictionarySpec
from harness.experiment.rows import SubjectSpec, SystemSpec
from harness.experiment.schema import Experiment
from harness.training import upcycling
from harness.training.config import Distillation, TrainingConfig
from harness.training.end_to_end import FORWARD_PASSES
from harness.training.objective import forward_flops_per_token
from kernels.registry import nearest
from saes.pretrained import Pretrained
from saes.training_dictionary import DictionaryConfig, Shape, Standardisation, TrainingDictionary

# What is solved for when sizes are matched: the first of these that the architecture has.
_FREE_SIZES = ("max_experts", "d_expert", "d_ff", "k")
_LARGEST = 1 << 36  # beyond any token count or size


@dataclass(frozen=True)
class ModelSize:
    """Of a model: parameters, those that a token touches, forward FLOPs per token."""

    parameters: int
    active_parameters: int
    forward_flops: float


@dataclass(frozen=True)
class Budget:
    """What one system takes. FLOPs of training by what they are spent on; tokens that the subject trains on."""

    size: ModelSize  # with its dictionaries
    tokens: int
    subject_flops: float
    teacher_flops: float = 0.0
    origin_flops: float = 0.0  # of the dense subject that it was upcycled from
    collecting_flops: float = 0.0
    dictionary_flops: float = 0.0
    dictionary_tokens: int = 0
    trial_flops: float = 0.0  # beside the budget

    @property
    def training_flops(self) -> float:
        subject = self.subject_flops + self.teacher_flops + self.origin_flops
        return subject + self.collecting_flops + self.dictionary_flops


@dataclass(frozen=True)
class Line:
    """A row of the plan. unmatched: why it takes no part in matching. solved: what was found for it, in words."""

    spec: SystemSpec
    budget: Budget
    unmatched: str | None = None
    solved: str | None = None

    @property
    def notes(self) -> list[str]:
        return [note for note in (self.solved, f"not matched: {self.unmatched}" if self.unmatched else None) if note]


@dataclass(frozen=True)
class Matching:
    """The systems of an experiment with what was free solved. statement: what is equal, in a line for the table."""

    lines: tuple[Line, ...]
    statement: str

    @property
    def specs(self) -> tuple[SystemSpec, ...]:
        return tuple(line.spec for line in self.lines)

    def notes(self, row: str) -> list[str]:
        return next(line.notes for line in self.lines if line.spec.name == row)


def matched(experiment: Experiment, specs: list[SystemSpec]) -> Matching:
    """Solves what is free. Raises BadInput at the first row that cannot be matched within the tolerance."""
    wanted = experiment.budget
    _check_names(experiment, specs)
    unmatched = {spec.name: _reason(spec, specs, experiment) for spec in specs}
    if wanted.matched == "none":
        lines = (Line(spec, budget_of(spec, experiment), unmatched=None) for spec in specs)
        return Matching(tuple(lines), "nothing: systems differ in what they take")
    taking_part = [spec for spec in specs if unmatched[spec.name] is None]
    total = wanted.amount or _reference(experiment, taking_part)
    solved: dict[str, str] = {}
    subjects: dict[str, SubjectSpec] = {}
    dictionaries: dict[str, DictionarySpec] = {}
    for spec in taking_part:
        base = replace(spec, subject=subjects.get(spec.subject.name, spec.subject))
        found, note = _solve(base, total, experiment)
        if note:
            solved[spec.name] = note
        if found.dictionary is not None:
            dictionaries[spec.name] = found.dictionary
        subjects[spec.subject.name] = found.subject
    lines = []
    for spec in specs:
        subject = subjects.get(spec.subject.name, spec.subject)
        spec = replace(spec, subject=subject, dictionary=dictionaries.get(spec.name, spec.dictionary))
        lines.append(Line(spec, budget_of(spec, experiment), unmatched[spec.name], solved.get(spec.name)))
    statement = f"{wanted.matched} {total:.4g}, to {wanted.tolerance:.1%}"
    return Matching(tuple(lines), statement if len(taking_part) > 1 else "nothing: there is one system")


def budget_of(spec: SystemSpec, experiment: Experiment) -> Budget:
    """All that a system takes."""
    subject, length = spec.subject, experiment.corpus.sequence_length
    size = size_of(subject, experiment)
    trained, from_teacher, from_origin, tokens = _subject_flops(subject, experiment)
    trials = experiment.learning_rate_trials
    tried = 0.0
    if trials is not None and not subject.untrained:
        short = subject.training.model_copy(update={"tokens": trials.tokens})
        tried = 3 * size.forward_flops * _rounded(short, length) * len(trials.scales)
    budget = Budget(size, tokens, trained, from_teacher, from_origin, trial_flops=tried)
    if spec.dictionary is None or isinstance(spec.dictionary.config, Pretrained):
        return budget
    return _with_dictionary(budget, spec.dictionary, spec.dictionary.config, subject)


def size_of(subject: SubjectSpec, experiment: Experiment) -> ModelSize:
    corpus = experiment.corpus
    settings = json.dumps(subject.settings, sort_keys=True)
    return _size(subject.architecture, settings, corpus.vocab_size, corpus.sequence_length)


@functools.lru_cache(maxsize=4096)
def _size(architecture: str, settings: str, vocab_size: int, length: int) -> ModelSize:
    with torch.device("meta"):  # nothing is allocated, however large
        model = models.build(
            architecture, **json.loads(settings), vocab_size=vocab_size, max_position_embeddings=length
        )
    return ModelSize(
        sum(parameter.numel() for parameter in model.parameters()),
        model.active_parameters(),
        float(model.forward_flops_per_token(length)),
    )


@functools.lru_cache(maxsize=64)
def _foreign_forward_flops(folder: Path, length: int) -> float:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    return forward_flops_per_token(model, length)


def _rounded(training: TrainingConfig, length: int) -> int:
    return training.steps(length) * training.batch_sequences * length


def _subject_flops(subject: SubjectSpec, experiment: Experiment) -> tuple[float, float, float, int]:
    """FLOPs of its own training, owed to its teacher, owed to what it was upcycled from; tokens."""
    if subject.untrained:
        return 0.0, 0.0, 0.0, 0
    length = experiment.corpus.sequence_length
    tokens = _rounded(subject.training, length)
    owed = 0.0
    if subject.teacher is not None:
        per_token = 0.0
        if isinstance(subject.teacher, SubjectSpec):
            owed = sum(_subject_flops(subject.teacher, experiment)[:3])
            per_token = size_of(subject.teacher, experiment).forward_flops
        else:
            per_token = _foreign_forward_flops(subject.teacher, length)
        if isinstance(subject.training.target, Distillation):
            owed += per_token * tokens
    from_origin = sum(_subject_flops(subject.origin, experiment)[:3]) if subject.origin is not None else 0.0
    return 3 * size_of(subject, experiment).forward_flops * tokens, owed, from_origin, tokens


def _with_dictionary(
    budget: Budget, dictionary: DictionarySpec, config: DictionaryConfig, subject: SubjectSpec
) -> Budget:
    settings, sites = dictionary.settings, len(dictionary.sites)
    tokens = -(-settings.train_tokens // settings.batch_tokens) * settings.batch_tokens
    per_token, own = _dictionary_cost(config, _width(subject))
    passes = FORWARD_PASSES if settings.objective == "end_to_end" else 1
    return replace(
        budget,
        size=ModelSize(
            budget.size.parameters + sites * own.parameters,
            budget.size.active_parameters + sites * own.active_parameters,
            budget.size.forward_flops + sites * own.forward_flops,
        ),
        collecting_flops=passes * budget.size.forward_flops * tokens,
        dictionary_flops=sites * per_token * tokens,
        dictionary_tokens=tokens,
    )


def _width(subject: SubjectSpec) -> int:
    return subject.config.d_model


@functools.lru_cache(maxsize=1024)
def _dictionary_cost(config: DictionaryConfig, width: int) -> tuple[float, ModelSize]:
    """Training FLOPs per token of one site's dictionary, when k latents fire and none is dead; and its size."""
    module = config.build(Shape(width, width, transcoder=config.transcodes), torch.Generator().manual_seed(0))
    k, n = config.k, config.n_latents
    if isinstance(module, TrainingDictionary):
        per_token = module.flops(1000, round(1000 * k)) / 1000
    else:
        per_token = 12.0 * width * n  # SAELens' step is dense
    raw = Standardisation(torch.zeros(width), 1.0)
    held_out = torch.randn(64, width, generator=torch.Generator().manual_seed(0))  # thresholds are set on it
    trained = module.inference(raw, raw, held_out)  # what the row's record counts: a tied encoder is unfolded there
    return per_token, ModelSize(trained.parameter_count(), trained.active_parameters(k), trained.flops_per_token(k))


def amount(budget: Budget, kind: str) -> float:
    """What of a budget is matched."""
    if kind == "training_flops":
        return budget.training_flops
    if kind == "tokens":
        return budget.tokens
    return budget.size.active_parameters if kind == "active_parameters" else budget.size.forward_flops


def _amount(spec: SystemSpec, experiment: Experiment) -> float:
    kind = experiment.budget.matched
    # Sizes and tokens are the subjects': dictionaries come on top.
    return amount(budget_of(spec if kind == "training_flops" else replace(spec, dictionary=None), experiment), kind)


def _reference(experiment: Experiment, taking_part: list[SystemSpec]) -> float:
    if experiment.budget.matched == "training_flops":
        return max((_amount(spec, experiment) for spec in taking_part), default=0.0)
    named = [spec for spec in taking_part if spec.name == experiment.baseline]
    return next((_amount(spec, experiment) for spec in named or taking_part), 0.0)


def _reason(spec: SystemSpec, specs: list[SystemSpec], experiment: Experiment) -> str | None:
    """Why a row takes no part in matching; None where it does."""
    if spec.subject.untrained:
        return "an untrained control"
    if spec.name in experiment.scaling:
        return "a point of the scaling curve"
    if spec.dictionary is not None and isinstance(spec.dictionary.config, Pretrained):
        return "its dictionaries were trained elsewhere"
    for other in specs:
        if isinstance(other.subject.teacher, SubjectSpec) and other.subject.teacher.name == spec.name:
            return f"the teacher of {other.name}"
        if other.subject.origin is not None and other.subject.origin.name == spec.name:
            return f"what {other.name} is upcycled from"
        grafted = other.dictionary is not None and other.subject.name == spec.name
        if grafted and experiment.budget.matched == "training_flops":
            return f"a part of {other.name}"
    return None


def _check_names(experiment: Experiment, specs: list[SystemSpec]) -> None:
    rows = [spec.name for spec in specs]
    for row in experiment.budget.free:
        if row not in rows:
            raise BadInput(f"budget.free: no row {row!r}; {nearest(row, rows)}")
    subjects = [spec.name for spec in specs if spec.dictionary is None and not spec.subject.untrained]
    for row in experiment.scaling:
        if row not in subjects:
            raise BadInput(f"scaling: no trained subject row {row!r}; {nearest(row, subjects)}")
    if experiment.scaling and len(set(experiment.scaling)) < 3:
        raise BadInput(f"scaling = {list(experiment.scaling)}: a curve needs at least 3 rows")


def _solve(spec: SystemSpec, total: float, experiment: Experiment) -> tuple[SystemSpec, str | None]:
    """The system with its free quantity moved so that it takes `total`, and what was found, in words."""
    kind, tolerance = experiment.budget.matched, experiment.budget.tolerance
    name, value, changed = _free(spec, experiment)

    def difference(candidate: SystemSpec) -> float:
        return _amount(candidate, experiment) / total - 1

    def tried(candidate: int) -> float | None:
        try:
            return difference(changed(candidate))
        except (ValueError, RuntimeError):
            return None  # a size that cannot be

    best, off = spec, difference(spec)
    stated = _stated(spec, name, experiment)
    # What is near enough stays as the file says, so that rows go on sharing a pass over the subject.
    if not stated and abs(off) > tolerance / 2:
        for candidate in _around(tried, value):
            found = tried(candidate)
            if found is not None and abs(found) < abs(off):
                best, off, value = changed(candidate), found, candidate
    if abs(off) > tolerance:
        how = f"states its own {name}" if stated else f"comes no nearer than with {name}={value}"
        raise BadInput(
            f"systems.{spec.name}: {kind} is {off:+.1%} from the {total:.4g} of the others, and the row {how}; "
            f"free another of its sizes (budget.free.{spec.name}=...) or say budget.matched=none"
        )
    if best == spec:
        return best, None
    if "tokens" in name:  # whole batches
        found = budget_of(best, experiment)
        value = found.tokens if name == "tokens" else found.dictionary_tokens
    return best, f"{name} {value:,} to match {kind} ({off:+.2%})"


def _free(spec: SystemSpec, experiment: Experiment) -> tuple[str, int, Callable[[int], SystemSpec]]:
    """Name of the free quantity, its value, and the system with another."""
    subject, dictionary = spec.subject, spec.dictionary
    config = subject.config
    sizes = [name for name in type(config).settings() if isinstance(getattr(config, name), int)]
    if subject.origin is not None:
        sizes = [name for name in sizes if name not in upcycling.DECIDED]
    name = experiment.budget.free.get(spec.name)
    if name is None and experiment.budget.matched in ("training_flops", "tokens"):
        name = "tokens"
    if name is None:
        name = next((size for size in _FREE_SIZES if size in sizes), "n_layers")
    if name == "tokens":
        if dictionary is not None and experiment.budget.matched == "training_flops":
            settings = dictionary.settings
            return "dictionary tokens", settings.train_tokens, lambda value: replace(
                spec, dictionary=replace(dictionary, settings=replace(settings, train_tokens=value))
            )  # fmt: skip
        training = subject.training
        return "tokens", training.tokens, lambda value: replace(
            spec, subject=replace(subject, training=training.model_copy(update={"tokens": value}))
        )  # fmt: skip
    if name not in sizes:
        raise BadInput(f"budget.free.{spec.name} = {name!r}: {nearest(name, ['tokens', *sizes])}")

    def resized(value: int) -> SystemSpec:
        settings = {**subject.settings, name: value}
        models.ARCHITECTURES[subject.architecture].config(**settings)  # ValueError: impossible
        return replace(spec, subject=replace(subject, settings=settings))

    return name, getattr(config, name), resized


def _stated(spec: SystemSpec, name: str, experiment: Experiment) -> bool:
    """Whether the row itself says what the free quantity is: then it is not free, unless budget.free names it."""
    if spec.name in experiment.budget.free:
        return False
    options = experiment.systems[spec.name]
    if name == "dictionary tokens":
        return "train_tokens" in options.get("training", {})
    if name == "tokens":
        return "tokens" in options.get("training", {})
    return name in spec.subject.settings


def _around(tried: Callable[[int], float | None], start: int) -> tuple[int, ...]:
    """The two neighbouring values between which what is matched passes the goal; it grows with the value."""

    def short(value: int) -> bool:
        found = tried(value)
        # Impossible values are beyond an end of what is possible: which end, says on which side of `start` they are.
        return value < start if found is None else found < 0

    low, high = 0, max(1, start)
    while short(high) and high < _LARGEST:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if short(middle) else (low, middle)
    return tuple(value for value in (low, high) if value >= 1)
