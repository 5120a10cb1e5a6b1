"""Row-sparse Adam on CPU (numba, float32): one pass over the touched rows."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from kernels.memory import array
from kernels.threads import check_range, jit, parallel


def update(
    p: Tensor, rows: Tensor, gradient: Tensor, step: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, lr: float,
    beta1: float, beta2: float, eps: float, weight_decay: float,
) -> None:  # fmt: skip
    """In place on p, step, exp_avg and exp_avg_sq at `rows` int64 `[n]`, which differ; gradient `[n, d]`."""
    check_range(rows, len(p))
    if not (p.is_contiguous() and exp_avg.is_contiguous() and exp_avg_sq.is_contiguous()):
        raise ValueError("row_sparse_adam updates in place and needs contiguous parameters")
    constants = (np.float32(value) for value in (beta1, beta2, eps, 1 - lr * weight_decay))
    parallel(
        _update, len(rows), array(p), array(rows), array(gradient), array(step), array(exp_avg), array(exp_avg_sq),
        lr, beta1, beta2, *constants,
    )  # fmt: skip


@jit
def _update(
    p, rows, gradient, step, exp_avg, exp_avg_sq, lr, beta1, beta2, b1, b2, eps, decay, start, stop
):  # fmt: skip
    one = np.float32(1)
    for i in range(start, stop):
        row = rows[i]
        step[row] += 1
        size = np.float32(lr / (1 - beta1 ** step[row]))
        shrink = np.float32(1 / math.sqrt(1 - beta2 ** step[row]))
        for j in range(p.shape[1]):
            g = gradient[i, j]
            first = b1 * exp_avg[row, j] + (one - b1) * g
            second = b2 * exp_avg_sq[row, j] + (one - b2) * g * g
            exp_avg[row, j] = first
            exp_avg_sq[row, j] = second
            p[row, j] = decay * p[row, j] - size * first / (np.float32(math.sqrt(second)) * shrink + eps)
