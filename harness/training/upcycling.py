"""Subjects that start from a trained dense one of the same experiment (`upcycle: <row>`) and not from random weights.

It is a confound, so it is marked in the row, and all that the dense model's training took is charged to the subject.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

import models
from harness.training.record import TrainingRecord
from models.config import TrunkConfig
from models.dense import DenseConfig, DenseForCausalLM
from models.moex import MoexForCausalLM, upcycle

# What the dense model decides; the rest are the subject's own settings.
DECIDED = frozenset({*TrunkConfig.settings(), "d_expert"})


def completed(
    architecture: str, settings: dict[str, Any], dense: str, dense_settings: dict[str, Any]
) -> dict[str, Any]:
    """The settings of a subject upcycled from a dense one: with experts as wide as its layer. Raises ValueError, one
    line, where it cannot be."""
    chosen, source = models.ARCHITECTURES[architecture], models.ARCHITECTURES[dense]
    if not issubclass(chosen.model_class, MoexForCausalLM):
        can = [name for name, known in models.ARCHITECTURES.items() if issubclass(known.model_class, MoexForCausalLM)]
        raise ValueError(f"{architecture} cannot be upcycled (allowed: {', '.join(can)})")
    if not issubclass(source.model_class, DenseForCausalLM):
        raise ValueError(f"{dense} is not dense: only a dense subject can be upcycled")
    from_ = source.config(**dense_settings)
    assert isinstance(from_, DenseConfig)
    if from_.activation not in ("gelu", "relu"):
        raise ValueError(f"a dense model of activation {from_.activation!r} cannot be upcycled: use one of gelu, relu")
    settings = {"d_expert": from_.d_ff, **settings}
    config = chosen.config(**settings)
    for name, theirs in {"d_expert": from_.d_ff, "activation": from_.activation}.items():
        if getattr(config, name) != theirs:
            raise ValueError(f"{name} = {getattr(config, name)!r}, but the dense model has {theirs!r}; they must agree")
    for name in TrunkConfig.settings():
        if (mine := getattr(config, name)) != (theirs := getattr(from_, name)):
            raise ValueError(f"{name} = {mine!r}, but the dense model has {theirs!r}; they must agree")
    return settings


def initial(architecture: str, settings: dict[str, Any], dense: Path, seed: int) -> MoexForCausalLM:
    """The subject before its own training, from the dense model saved in the folder `dense`."""
    torch.manual_seed(seed)  # a linear router starts at random
    config = models.ARCHITECTURES[architecture].config(**settings)
    own = {name: getattr(config, name) for name in type(config).settings() if name not in DECIDED}
    generator = torch.Generator().manual_seed(seed)
    return upcycle(DenseForCausalLM.from_pretrained(dense), generator=generator, **own)


def charge(work: Path, dense: Path) -> None:
    """Adds what training the dense subject (its stage's folder) took to the record of a subject just trained."""
    record = TrainingRecord.load(work)
    total = record.training_flops + TrainingRecord.load(dense).training_flops
    (work / "training.json").write_text(json.dumps(asdict(replace(record, training_flops=total)), indent=1))
