"""How the systems of an experiment are made equal, before anything is trained.

What is matched (`budget.matched`):

- training_flops (default): all that a system's training takes: subject, teacher, collecting activations, dictionaries.
  What is solved is how many tokens it trains on: the subject of a row without a dictionary, the dictionaries of a row
  with one (both, where it says which `share` of the budget its dictionaries get). Sizes stay what the file says, so
  this is the least that has to give way, and it is fine enough for any tolerance. Every row gets what the dearest asks
  for, so that none trains on less than the file says, or `budget.amount`.
- active_parameters, forward_flops: of the subjects. What is solved is a size: d_ff of a dense model, the number of
  active experts. Dictionaries come on top and are reported.
- tokens: that the subjects train on.
- none: nothing.

`budget.free` names another free quantity for a row. What a row itself states is not free. Not matched, and said so in
the table: what another row is made of (a teacher, the dense row that one is upcycled from; in training_flops also the
subject that a dictionary row without a share trains on), rows of the scaling curve and others that get a part of the
budget, untrained controls, dictionaries that come on top of their subject's budget or were trained elsewhere. Choosing
shapes and learning rates is counted by itself (harness/experiment/search.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import models
from harness.base.errors import BadInput
from harness.experiment.budget import Budget, budget_of
from harness.experiment.rows import SubjectSpec, SystemSpec
from harness.experiment.schema import Experiment
from harness.training import upcycling
from kernels.registry import nearest
from saes.pretrained import Pretrained

# What is solved for when sizes are matched: the first of these that the architecture has.
_FREE_SIZES = ("max_experts", "d_expert", "d_ff", "k")
_LARGEST = 1 << 36  # beyond any token count or size


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
    """The systems of an experiment with what was free solved. statement: what is equal, in a line for the table.
    shared_total: whether what is equal holds a row's dictionaries too."""

    lines: tuple[Line, ...]
    statement: str
    shared_total: bool

    @property
    def specs(self) -> tuple[SystemSpec, ...]:
        return tuple(line.spec for line in self.lines)

    def notes(self, row: str) -> list[str]:
        return self._line(row).notes

    def unmatched(self, row: str) -> str | None:
        return self._line(row).unmatched

    def accounting(self, row: str) -> Literal["equal total", "same subject"] | None:
        """How the row's dictionaries are paid for: out of its budget, or on top of its subject's. None without any."""
        line = self._line(row)
        if line.spec.dictionary is None:
            return None
        return "equal total" if self.shared_total and line.unmatched is None else "same subject"

    def _line(self, row: str) -> Line:
        return next(line for line in self.lines if line.spec.name == row)


def matched(experiment: Experiment, specs: list[SystemSpec]) -> Matching:
    """Solves what is free. Raises BadInput at the first row that cannot be matched within the tolerance."""
    wanted = experiment.budget
    _check_names(experiment, specs)
    reasons = unmatched(specs, experiment)
    if wanted.matched == "none":
        lines = (Line(spec, budget_of(spec, experiment), unmatched=None) for spec in specs)
        return Matching(tuple(lines), "nothing: systems differ in what they take", shared_total=False)
    taking_part = [spec for spec in specs if reasons[spec.name] is None]
    total = wanted.amount or _reference(experiment, taking_part)
    solved: dict[str, str] = {}
    subjects: dict[str, SubjectSpec] = {}
    found: dict[str, SystemSpec] = {}
    # Subjects first: what comes on top of one is solved when that is known.
    for spec in sorted(specs, key=lambda spec: spec.dictionary is not None):
        if reasons[spec.name] is not None and not spec.solved_alone:
            continue
        base = replace(spec, subject=subjects.get(spec.subject.name, spec.subject))
        found[spec.name], note = solve(base, total * (spec.budget or 1), experiment)
        if note:
            solved[spec.name] = note
        if not spec.splits_budget:
            subjects[spec.subject.name] = found[spec.name].subject
    lines = []
    for spec in specs:
        here = found.get(spec.name, spec)
        if not spec.splits_budget:
            here = replace(here, subject=subjects.get(spec.subject.name, spec.subject))
        lines.append(Line(here, budget_of(here, experiment), reasons[spec.name], solved.get(spec.name)))
    statement = f"{wanted.matched} {total:.4g}, to {wanted.tolerance:.1%}"
    statement = statement if len(taking_part) > 1 else "nothing: there is one system"
    return Matching(tuple(lines), statement, shared_total=wanted.matched == "training_flops")


def solve(
    spec: SystemSpec, total: float, experiment: Experiment, *, as_near_as_can_be: bool = False
) -> tuple[SystemSpec, str | None]:
    """The system with its free quantity moved so that it takes `total`, and what was found, in words. Where its
    dictionaries have a share, the subject takes what is left, or `total` where they come on top.

    Raises BadInput outside the tolerance, unless the nearest is good enough (a trial is a few batches long)."""
    dictionary = spec.dictionary
    if dictionary is None or dictionary.share is None:
        return _solved(spec, total, experiment, as_near_as_can_be)
    if dictionary.on_top:
        alone = budget_of(replace(spec, dictionary=None), experiment).training_flops
        return _solved(spec, alone + dictionary.share * total, experiment, as_near_as_can_be)
    without = replace(spec, dictionary=None)
    subject, _ = _solved(without, (1 - dictionary.share) * total, experiment, as_near_as_can_be)
    found, _ = _solved(replace(spec, subject=subject.subject), total, experiment, as_near_as_can_be)
    taken = budget_of(found, experiment)
    note = (
        f"{dictionary.share:.0%} of the budget for the dictionaries: subject {taken.tokens:,} tokens, "
        f"dictionaries {taken.dictionary_tokens:,} ({taken.training_flops / total - 1:+.2%})"
    )
    return found, note


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


def unmatched(specs: list[SystemSpec], experiment: Experiment) -> dict[str, str | None]:
    """Row → why it takes no part in matching; None where it does."""
    return {spec.name: _reason(spec, specs, experiment) for spec in specs}


def _reason(spec: SystemSpec, specs: list[SystemSpec], experiment: Experiment) -> str | None:
    if spec.subject.untrained:
        return "an untrained control"
    if spec.subject.pretrained is not None:
        return "its subject was trained elsewhere"
    if spec.budget not in (None, 1):
        return f"it gets {spec.budget:g} of the budget"
    if spec.name in experiment.scaling and spec.budget is None:
        return "a point of the scaling curve"
    if spec.dictionary is not None and spec.dictionary.on_top:
        return "its dictionaries come on top of what its subject takes"
    if spec.dictionary is not None and isinstance(spec.dictionary.config, Pretrained):
        return "its dictionaries were trained elsewhere"
    for other in specs:
        if isinstance(other.subject.teacher, SubjectSpec) and other.subject.teacher.name == spec.name:
            return f"the teacher of {other.name}"
        if other.subject.origin is not None and other.subject.origin.name == spec.name:
            return f"what {other.name} is upcycled from"
        grafted = other.dictionary is not None and other.subject.name == spec.name
        apart = other.dictionary is not None and (other.dictionary.share is not None or other.dictionary.on_top)
        if grafted and not apart and experiment.budget.matched == "training_flops":
            return f"a part of {other.name}"
    return None


def _check_names(experiment: Experiment, specs: list[SystemSpec]) -> None:
    rows = [spec.name for spec in specs]
    for row in experiment.budget.free:
        if row not in rows:
            raise BadInput(f"budget.free: no row {row!r}; {nearest(row, rows)}")
    subjects = [spec.name for spec in specs if spec.dictionary is None and spec.subject.trained_here]
    for row in experiment.scaling:
        if row not in subjects:
            raise BadInput(f"scaling: no trained subject row {row!r}; {nearest(row, subjects)}")
    if experiment.scaling and len(set(experiment.scaling)) < 3:
        raise BadInput(f"scaling = {list(experiment.scaling)}: a curve needs at least 3 rows")


def _solved(
    spec: SystemSpec, total: float, experiment: Experiment, as_near_as_can_be: bool
) -> tuple[SystemSpec, str | None]:
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
    if abs(off) > tolerance and not as_near_as_can_be:
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
