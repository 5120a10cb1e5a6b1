"""The stage of a subject that was trained elsewhere: where it lies, or the weights that were made of it."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from harness.base.errors import BadInput
from harness.base.progress import stage_progress
from harness.run.numerics import Numerics
from harness.store.stages import Stage
from harness.training.record import CURVE_FILE, TrainingRecord
from models import pretrained
from models.subject import Subject

if TYPE_CHECKING:
    from harness.experiment.rows import SubjectSpec

FILE = "pretrained.json"


def stage(spec: SubjectSpec, seed: int, numerics: Numerics) -> Stage:
    """Keyed by the model's bytes and how they are read; a seed matters only to what is initialised here."""
    model = spec.pretrained
    assert model is not None
    config: dict[str, Any] = {"pretrained": model.digest, "dtype": model.dtype, "names": dict(model.names)}
    label = f"subject {spec.name}"
    if spec.untrained:
        config |= {"untrained": True, "seed": seed, **numerics.as_config()}
        label = f"{label}, seed {seed}"
    return Stage("subject", label, config, (), (__name__, *model.modules))


def produce(spec: SubjectSpec, seed: int, sequence_length: int, label: str, work: Path) -> None:
    """Leaves a note of where the model is, with weights of its own where they are made here: initialised, or read from
    GGUF. What its training took is not known: NaN. Raises BadInput where it cannot be read."""
    model = spec.pretrained
    assert model is not None
    names = dict(model.names)
    with stage_progress(label) as report:
        report(0, 1, "model read")
        try:
            if spec.untrained:
                torch.manual_seed(seed)
                subject = pretrained.initial(model.folder, model.gguf_file, names)
            else:
                subject = pretrained.load(model.folder, model.dtype, model.gguf_file, names)
        except ValueError as error:
            raise BadInput(f"{spec.name}: {error}") from error
        made = spec.untrained or model.gguf_file is not None
        if made:
            pretrained.save(subject, work / "model")
        report(1, 1, "model read")
    said = {"folder": None if made else str(model.folder.absolute()), "dtype": model.dtype, "names": names}
    (work / FILE).write_text(json.dumps(said, indent=1))
    (work / CURVE_FILE).write_text("")
    record = TrainingRecord.untrained(
        sum(parameter.numel() for parameter in subject.parameters()),
        subject.active_parameters(),
        float(subject.forward_flops_per_token(sequence_length)),
        0.0 if spec.untrained else math.nan,
    )
    (work / "training.json").write_text(json.dumps(asdict(record), indent=1))


def read(folder: Path, device: str) -> Subject:
    """Raises BadInput where the model is no longer there."""
    said = json.loads((folder / FILE).read_text())
    where = folder / "model" if said["folder"] is None else Path(said["folder"])
    try:
        subject = pretrained.load(where, said["dtype"], None, said["names"])
    except ValueError as error:
        raise BadInput(str(error)) from error
    nn.Module.to(subject, device)
    return subject
