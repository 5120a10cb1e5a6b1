"""Adam for very large tables of which a step touches few rows: it costs what was touched."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from kernels import dispatch

__all__ = ["RowSparseAdam"]


class RowSparseAdam(torch.optim.Optimizer):
    """Adam (arXiv 1412.6980) with decoupled weight decay, row by row: our own variant.

    A row that a gradient does not name keeps its value and its moments, and does not age: bias correction counts the
    steps of each row. With every row touched on every step it is AdamW. Parameters `[rows, d]`, gradients sparse COO
    over rows (as `rank1_experts(sparse_gradients=True)` and `F.embedding(sparse=True)` give) or dense, where rows that
    are zero throughout count as untouched.

    max_norm: if given, gradients of each group are scaled down to this joint 2-norm first (`clip_grad_norm_` refuses
    sparse gradients). Raises ValueError on negative settings.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        max_norm: float | None = None,
    ) -> None:
        for name, value in (("lr", lr), ("eps", eps), ("weight_decay", weight_decay), ("max_norm", max_norm or 0.0)):
            if value < 0:
                raise ValueError(f"{name}={value} is negative: the least is 0")
        super().__init__(
            params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "max_norm": max_norm}
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            touched = [(p, *_rows(p.grad)) for p in group["params"] if p.grad is not None]
            scale = _clip([values for _, _, values in touched], group["max_norm"])
            for p, rows, values in touched:
                state = self.state[p]
                if not state:
                    # `step` is the one name that torch's load_state_dict does not cast to the parameter's dtype.
                    state["step"] = torch.zeros(len(p), dtype=torch.long, device=p.device)
                    state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
                implementation = dispatch.choose("row_sparse_adam", p.device.type, p.dtype, has=("cpu",))
                dispatch.load(__name__, implementation).update(
                    p, rows, values if scale is None else values * scale, state["step"], state["exp_avg"],
                    state["exp_avg_sq"], group["lr"], *group["betas"], group["eps"], group["weight_decay"],
                )  # fmt: skip
        return loss


def _rows(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """(row numbers, their gradients) of a sparse or dense gradient."""
    if gradient.is_sparse:
        rows, values = gradient._indices()[0], gradient._values()
        # Autograd drops the mark of being coalesced: look before sorting and copying what is in order.
        if bool((rows[1:] > rows[:-1]).all()):
            return rows, values
        gradient = gradient.coalesce()
        return gradient.indices()[0], gradient.values()
    rows = gradient.flatten(1).any(1).nonzero()[:, 0]
    return rows, gradient.index_select(0, rows)


def _clip(gradients: list[Tensor], max_norm: float | None) -> Tensor | None:
    if max_norm is None or not gradients:
        return None
    norm = torch.stack([values.norm() for values in gradients]).norm()
    return (max_norm / norm.clamp_min(1e-6)).clamp_max(1.0)
