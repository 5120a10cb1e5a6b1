"""What a system takes, before anything is trained: parameters, and FLOPs of training by what they are spent on.

Sizes are those of the corpus's full vocabulary; a corpus too small to fill it makes all systems cheaper alike.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

import models
from harness.base.errors import BadInput
from harness.experiment.dictionary_rows import DictionarySpec
from harness.experiment.pretrained_rows import PretrainedModel
from harness.experiment.rows import SubjectSpec, SystemSpec
from harness.experiment.schema import Experiment
from harness.training.config import Distillation, TrainingConfig
from harness.training.end_to_end import FORWARD_PASSES
from harness.training.objective import forward_flops_per_token
from harness.training.optimizer import step_flops
from models import pretrained
from saes.pretrained import Pretrained
from saes.training_dictionary import DictionaryConfig, Shape, Standardisation, TrainingDictionary


@dataclass(frozen=True)
class ModelSize:
    """Of a model: parameters, those that a token touches, forward FLOPs per token, the optimiser's per step."""

    parameters: int
    active_parameters: int
    forward_flops: float
    step_flops: float = 0.0  # of the optimiser, per step


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

    @property
    def training_flops(self) -> float:
        subject = self.subject_flops + self.teacher_flops + self.origin_flops
        return subject + self.collecting_flops + self.dictionary_flops


def budget_of(spec: SystemSpec, experiment: Experiment) -> Budget:
    """All that a system takes."""
    subject = spec.subject
    size = size_of(subject, experiment)
    trained, from_teacher, from_origin, tokens = _subject_flops(subject, experiment)
    budget = Budget(size, tokens, trained, from_teacher, from_origin)
    if spec.dictionary is None or isinstance(spec.dictionary.config, Pretrained):
        return budget
    return _with_dictionary(budget, spec.dictionary, spec.dictionary.config, subject)


def size_of(subject: SubjectSpec, experiment: Experiment) -> ModelSize:
    corpus = experiment.corpus
    if subject.pretrained is not None:
        return _pretrained_size(subject.pretrained, corpus.sequence_length)
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
        step_flops(model),
    )


@functools.lru_cache(maxsize=64)
def _pretrained_size(model: PretrainedModel, length: int) -> ModelSize:
    """Raises BadInput where it is of no family that is known."""
    try:
        with torch.device("meta"):
            subject = pretrained.initial(model.folder, model.gguf_file, dict(model.names))
    except ValueError as error:
        raise BadInput(f"hf:{model.folder}: {error}") from error
    return ModelSize(
        sum(parameter.numel() for parameter in subject.parameters()),
        subject.active_parameters(),
        float(subject.forward_flops_per_token(length)),
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
    if not subject.trained_here:
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
    size = size_of(subject, experiment)
    own = 3 * size.forward_flops * tokens + size.step_flops * subject.training.steps(length)
    return own, owed, from_origin, tokens


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
