"""How subjects are trained: what a person can choose, and no more."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from harness.base.settings import Strict


class CrossEntropy(Strict):
    """Next-token cross entropy."""

    kind: Literal["ce"] = "ce"


class Distillation(Strict):
    """α · T² · KL(teacher ‖ student), both at temperature T, + (1 − α) · cross entropy."""

    kind: Literal["kl"]
    teacher: str = Field(description="A subject row of the same experiment, or hf:<folder or Hub id>.")
    temperature: float = Field(default=1.0, gt=0)
    alpha: float = Field(default=1.0, gt=0, le=1, description="Share of the KL; the rest is cross entropy.")


class Floor(Strict):
    """Sparsity loss + μ · max(0, cross entropy − c): as sparse as can be while the loss stays at c."""

    kind: Literal["floor"]
    teacher: str | None = Field(default=None, description="c is this model's cross entropy on dev, plus delta.")
    delta: float = Field(default=0.05, description="Nats per token above the teacher's.")
    cross_entropy: float | None = Field(default=None, gt=0, description="c itself, in nats per token.")
    mu: float = Field(default=1.0, ge=0, description="μ at the start.")
    mu_rate: float = Field(default=0.01, gt=0, description="What μ rises in a step for each nat above c.")

    @model_validator(mode="after")
    def _one_floor(self) -> Floor:
        if (self.teacher is None) == (self.cross_entropy is None):
            raise ValueError("give either teacher (with delta) or cross_entropy")
        return self


Target = Annotated[CrossEntropy | Distillation | Floor, Field(discriminator="kind")]


class StrengthL1(Strict):
    """weight × the summed strength of a token's units, mean over tokens and layers."""

    kind: Literal["l1"]
    weight: float = Field(gt=0)


class TargetStrengthL0(Strict):
    """weight × what a token's units beyond the `l0` strongest carry above 5% of its strength: zero once the strength-L0
    of every token is at most `l0` (per layer)."""

    kind: Literal["target_l0"]
    weight: float = Field(gt=0)
    l0: int = Field(ge=1)


Sparsity = Annotated[StrengthL1 | TargetStrengthL0, Field(discriminator="kind")]


class TrainingConfig(Strict):
    """How a subject is trained. Every system may override single fields under its own `training`."""

    tokens: int = Field(default=1_000_000, ge=1, description="Tokens seen, repeats included.")
    batch_sequences: int = Field(default=8, ge=1, description="Sequences of a step.")
    target: Target = Field(default=CrossEntropy(), description="What is minimised.")
    sparsity: Sparsity | None = Field(default=None, description="A penalty on the codes, added to the target.")
    learning_rate: float = Field(default=1e-2, gt=0, description="AdamW on embeddings and norms.")
    matrix_learning_rate: float = Field(default=0.04, gt=0, description="Muon on the trunk's hidden matrices.")
    router_learning_rate: float = Field(default=6e-3, gt=0, description="AdamW on routers, queries and keys.")
    table_learning_rate: float = Field(default=1e-2, gt=0, description="AdamW on expert tables.")
    weight_decay: float = Field(default=0.1, ge=0, description="On Muon's matrices only.")
    warmup: float = Field(default=0.05, ge=0, lt=1, description="Share of the steps in which the learning rate rises.")
    clip: float = Field(default=1.0, gt=0, description="Largest gradient norm.")
    log_every: int = Field(default=10, ge=1, description="Steps between two points of the curve.")
    checkpoints: int = Field(
        default=5, ge=0, description="Checkpoints during training; a killed run continues from the last."
    )

    @model_validator(mode="after")
    def _a_floor_needs_a_sparsity_loss(self) -> TrainingConfig:
        if isinstance(self.target, Floor) and self.sparsity is None:
            raise ValueError(
                "target kind 'floor' minimises a sparsity loss: give sparsity: {kind: l1 or target_l0, ...}"
            )
        return self

    @property
    def teacher(self) -> str | None:
        """What the target names as its teacher."""
        return None if isinstance(self.target, CrossEntropy) else self.target.teacher

    def steps(self, sequence_length: int) -> int:
        """Optimiser steps: whole batches, so the tokens seen are rounded up."""
        return -(-self.tokens // (self.batch_sequences * sequence_length))

    def scaled(self, factor: float) -> TrainingConfig:
        """With every learning rate times `factor`."""
        rates = ("learning_rate", "matrix_learning_rate", "router_learning_rate", "table_learning_rate")
        return self.model_copy(update={name: getattr(self, name) * factor for name in rates})
