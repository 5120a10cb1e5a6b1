"""What a reader of the table should know of a row besides its figures."""

from __future__ import annotations

from pathlib import Path

from harness.corpus import Corpus
from harness.experiment.rows import SubjectSpec
from harness.experiment.schema import EvaluationConfig
from harness.training.record import TrainingRecord
from harness.training.trials import Trials


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
    if (trials := Trials.load(folder)) is not None:
        notes.append(trials.note())
    return notes
