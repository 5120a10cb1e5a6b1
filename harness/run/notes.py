"""What a reader of the table should know of a row besides its figures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from harness.corpus import Corpus
from harness.experiment.rows import SubjectSpec, SystemSpec
from harness.experiment.schema import EvaluationConfig
from harness.tables.measurement import Measurement
from harness.tables.warnings import AT_AN_END
from harness.training.record import TrainingRecord
from harness.training.trials import Choice

VERSION = 1  # of the figures in the family `search`


def how_much_text(evaluation: EvaluationConfig, corpus: Corpus) -> list[str]:
    """Where fewer evaluation sequences exist than were asked for."""
    asked, there = evaluation.sequences, len(corpus.eval)
    return [f"evaluation: {asked:,} sequences asked for, {there:,} exist"] if asked > there else []


def how_trained(spec: SubjectSpec, folder: Path) -> list[str]:
    """How the subject in this stage folder came to be."""
    if spec.untrained:
        return ["untrained"]
    target, notes = spec.training.target, []
    if spec.origin is not None:
        notes.append(f"upcycled from {spec.origin.name}, whose training is counted")
    if spec.training.teacher is not None:
        notes.append(f"target {target.kind}, teacher {spec.training.teacher}")
    if (record := TrainingRecord.load(folder)).floor is not None:
        notes.append(f"floor {record.floor:.3f} nat/token, last training loss {record.final_loss:.3f}")
    if isinstance(spec.teacher, Path):
        notes.append("the teacher's own training is not counted: nobody here knows what it took")
    return notes


def how_chosen(choices: Mapping[str, Choice], spec: SystemSpec) -> list[str]:
    """Which shape and rates were chosen for a row, by which trials. Those of its subject stand at the subject's row."""
    if spec.name not in choices:
        return []
    choice = choices[spec.name]
    ends = [one.what for one in choice.rounds if len(one.tried) > 2 and one.taken in (0, len(one.tried) - 1)]
    return [choice.note(), *([f"{AT_AN_END}: {', '.join(ends)}"] if ends else [])]


def searched(choices: Mapping[str, Choice], spec: SystemSpec) -> list[Measurement]:
    """The family `search`, beside the budget: what choosing for the row took, its subject's included."""
    found = [choices[name] for name in _parts(spec) if name in choices]
    if not found:
        return []
    return [
        Measurement("search/training_flops", sum(choice.flops for choice in found), "FLOP", "lower", VERSION),
        Measurement("search/trials", float(sum(choice.trials for choice in found)), "trials", "none", VERSION),
    ]


def _parts(spec: SystemSpec) -> tuple[str, ...]:
    return (spec.subject.name,) if spec.dictionary is None else (spec.subject.name, spec.name)
