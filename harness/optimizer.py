"""Muon for the trunk's hidden matrices, AdamW for everything else, as one optimiser that Trainer can step and save."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from harness.training_config import TrainingConfig


class MuonAdamW(torch.optim.Optimizer):
    """Each parameter goes by the role its model gives it (`model.parameter_roles()`).

    matrix: `torch.optim.Muon`, with weight decay. embedding, norm, router, table: `torch.optim.AdamW` without decay,
    each role with its own learning rate. Expert tables have none of Muon's structure (their rows are separate experts),
    and decay would shrink the rows of experts that are never chosen.

    The groups of both optimisers are exposed in one `param_groups`, so one learning-rate schedule drives them.
    """

    def __init__(self, model: nn.Module, roles: dict[str, str], config: TrainingConfig) -> None:
        rates = {
            "embedding": config.learning_rate,
            "norm": config.learning_rate,
            "router": config.router_learning_rate,
            "table": config.table_learning_rate,
        }
        by_role: dict[str, list[nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            by_role.setdefault(roles[name], []).append(parameter)
        matrices = by_role.pop("matrix")
        groups = [{"params": parameters, "lr": rates[role], "role": role} for role, parameters in by_role.items()]
        super().__init__(list(model.parameters()), {})
        self.muon = torch.optim.Muon(
            [{"params": matrices, "role": "matrix"}],
            lr=config.matrix_learning_rate,
            weight_decay=config.weight_decay,
            momentum=0.95,
        )
        self.adamw = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-10, weight_decay=0.0, fused=True)
        self._expose_groups()

    def _expose_groups(self) -> None:
        self.param_groups = [*self.muon.param_groups, *self.adamw.param_groups]

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        loss = closure() if closure else None
        self.muon.step()
        self.adamw.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        return {"muon": self.muon.state_dict(), "adamw": self.adamw.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.muon.load_state_dict(state_dict["muon"])
        self.adamw.load_state_dict(state_dict["adamw"])
        self._expose_groups()  # loading replaced the group dictionaries
