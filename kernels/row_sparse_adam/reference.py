"""Ground truth of the row-sparse Adam update in plain torch: gather rows, update, put back."""

from __future__ import annotations

from torch import Tensor


def update(
    p: Tensor, rows: Tensor, gradient: Tensor, step: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, lr: float,
    beta1: float, beta2: float, eps: float, weight_decay: float,
) -> None:  # fmt: skip
    """In place on p, step, exp_avg and exp_avg_sq at `rows` int64 `[n]`, which differ; gradient `[n, d]`."""
    age = step.index_select(0, rows) + 1
    step.index_copy_(0, rows, age)
    first = exp_avg.index_select(0, rows).lerp(gradient, 1 - beta1)
    second = exp_avg_sq.index_select(0, rows).lerp(gradient.square(), 1 - beta2)
    exp_avg.index_copy_(0, rows, first)
    exp_avg_sq.index_copy_(0, rows, second)
    age = age.to(p.dtype)[:, None]
    denominator = (second / (1 - beta2**age)).sqrt() + eps
    values = p.index_select(0, rows) * (1 - lr * weight_decay)
    p.index_copy_(0, rows, values - lr * (first / (1 - beta1**age)) / denominator)
