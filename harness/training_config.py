"""How subjects are trained. Not in config.py, so that an option of something else changes no trained model's key."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Strict(BaseModel):
    """Configuration in which an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TrainingConfig(Strict):
    """How a subject is trained. Every system may override single fields under its own `training`."""

    tokens: int = Field(default=1_000_000, ge=1, description="Tokens seen, repeats included.")
    batch_sequences: int = Field(default=8, ge=1, description="Sequences of a step.")
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
