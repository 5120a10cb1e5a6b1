"""Muon for the trunk's hidden matrices, Adam for everything else, as one optimiser that Trainer can step and save."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from harness.training.config import TrainingConfig
from harness.training.muon import Muon, flops
from kernels.row_sparse_adam import RowSparseAdam
from models.trunk import TrunkForCausalLM

_BETAS, _EPS = (0.9, 0.95), 1e-10


class MuonAdamW(torch.optim.Optimizer):
    """Each parameter goes by the role its model gives it (`model.parameter_roles()`).

    matrix: `Muon`, with weight decay. embedding, norm, router, table: `torch.optim.AdamW` without decay, each role with
    its own learning rate; tables of a model whose config says `sparse_gradients`: `RowSparseAdam`, which costs what a
    step touched. Expert tables have none of Muon's structure (their rows are separate experts), and decay would shrink
    the rows of experts that are never chosen.

    The groups of all are exposed in one `param_groups`, so one learning-rate schedule drives them.
    """

    def __init__(self, model: nn.Module, roles: Mapping[str, str], config: TrainingConfig) -> None:
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
        sparse = by_role.pop("table", None) if getattr(model.config, "sparse_gradients", False) else None
        groups = [{"params": parameters, "lr": rates[role], "role": role} for role, parameters in by_role.items()]
        super().__init__(list(model.parameters()), {})
        self.parts: dict[str, torch.optim.Optimizer] = {
            "muon": Muon(
                [{"params": matrices, "role": "matrix"}],
                lr=config.matrix_learning_rate,
                weight_decay=config.weight_decay,
            ),
            "adamw": torch.optim.AdamW(groups, betas=_BETAS, eps=_EPS, weight_decay=0.0, fused=True),
        }
        if sparse:
            table = {"params": sparse, "lr": rates["table"], "role": "table"}
            self.parts["rows"] = RowSparseAdam([table], betas=_BETAS, eps=_EPS)
        self._expose_groups()

    def _expose_groups(self) -> None:
        self.param_groups = [group for part in self.parts.values() for group in part.param_groups]

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        loss = closure() if closure else None
        for part in self.parts.values():
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self.parts.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name, part in self.parts.items():
            part.load_state_dict(state_dict[name])
        self._expose_groups()  # loading replaced the group dictionaries


def step_flops(model: TrunkForCausalLM) -> float:
    """FLOPs of the matrix products of one optimiser step, whatever the batch: Muon's. What is done element by element
    is not counted, as in the forward pass."""
    roles = model.parameter_roles()
    return float(
        sum(
            flops(parameter.shape[0], parameter.shape[1])
            for name, parameter in model.named_parameters()
            if roles[name] == "matrix"
        )
    )


@torch.no_grad()
def clip_gradients(parameters: Iterable[Tensor], max_norm: float) -> Tensor:
    """Scales all gradients together to a 2-norm of at most `max_norm`; returns the norm before, 0-d.

    As `torch.nn.utils.clip_grad_norm_`, which refuses the sparse gradients of expert tables.
    """
    values = []
    for parameter in parameters:
        if parameter.grad is None:
            continue
        if parameter.grad.is_sparse:
            parameter.grad = parameter.grad.coalesce()  # the norm of rows that occur twice is that of their sum
            values.append(parameter.grad._values())
        else:
            values.append(parameter.grad)
    norm = torch.stack([value.norm() for value in values]).norm()
    scale = (max_norm / (norm + 1e-6)).clamp_max(1.0)
    for value in values:
        value.mul_(scale)
    return norm
