from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from kernels.rank1_experts import rank1_experts
from kernels.row_sparse_adam import RowSparseAdam


def gradients(steps, rows, d, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, d, generator=g) for _ in range(steps)]


@pytest.mark.parametrize("implementation", ["cpu", "reference"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_equals_adamw_when_every_row_is_touched(forced, implementation, weight_decay):
    forced(implementation)
    ours, theirs = (torch.nn.Parameter(torch.ones(6, 5)) for _ in range(2))
    a = RowSparseAdam([ours], lr=0.01, weight_decay=weight_decay)
    b = torch.optim.AdamW([theirs], lr=0.01, weight_decay=weight_decay)
    for gradient in gradients(5, 6, 5):
        ours.grad, theirs.grad = gradient.to_sparse(1), gradient.clone()
        a.step()
        b.step()
    assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("implementation", ["cpu", "reference"])
def test_untouched_rows_neither_move_nor_age(forced, implementation):
    forced(implementation)
    p = torch.nn.Parameter(torch.ones(4, 3))
    optimizer = RowSparseAdam([p], lr=0.1, weight_decay=0.5)
    for step, gradient in enumerate(gradients(3, 2, 3)):
        rows = torch.tensor([0, 2]) if step < 2 else torch.tensor([2, 3])
        p.grad = torch.sparse_coo_tensor(rows[None], gradient, (4, 3), check_invariants=True)
        optimizer.step()
    state = optimizer.state[p]
    assert state["step"].tolist() == [2, 0, 3, 1]
    assert torch.equal(p[1], torch.ones(3))
    assert state["exp_avg"][1].eq(0).all()
    # Row 3 saw one step: exactly Adam's first, which has length lr.
    assert torch.allclose(p[3], 0.95 - 0.1 * gradients(3, 2, 3)[2][1].sign(), atol=1e-4)


def test_dense_gradients_touch_the_rows_that_are_not_zero():
    p = torch.nn.Parameter(torch.ones(3, 2))
    optimizer = RowSparseAdam([p])
    p.grad = torch.tensor([[0.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    optimizer.step()
    assert optimizer.state[p]["step"].tolist() == [0, 1, 0]


def test_uncoalesced_gradients_are_added_up_first():
    ours, theirs = (torch.nn.Parameter(torch.ones(4, 2)) for _ in range(2))
    values = torch.tensor([[1.0, 2.0], [3.0, -5.0]])
    ours.grad = torch.sparse_coo_tensor([[1, 1]], values, (4, 2), check_invariants=True)
    theirs.grad = torch.sparse_coo_tensor([[1]], values.sum(0, keepdim=True), (4, 2), check_invariants=True)
    for p in (ours, theirs):
        RowSparseAdam([p]).step()
    assert torch.equal(ours, theirs)


def test_clipping_is_by_the_joint_norm_of_the_group():
    a, b = (torch.nn.Parameter(torch.zeros(2, 1)) for _ in range(2))
    optimizer = RowSparseAdam([a, b], max_norm=1.0)
    a.grad, b.grad = torch.tensor([[3.0], [0.0]]), torch.tensor([[0.0], [4.0]])
    optimizer.step()
    assert optimizer.state[a]["exp_avg"][0].item() == pytest.approx(0.1 * 3 / 5)
    assert optimizer.state[b]["exp_avg"][1].item() == pytest.approx(0.1 * 4 / 5)


def test_state_survives_saving_and_loading():
    def train(steps, p, optimizer):
        for gradient in steps:
            p.grad = gradient.to_sparse(1)
            optimizer.step()

    straight = torch.nn.Parameter(torch.ones(3, 2))
    train(gradients(4, 3, 2), straight, RowSparseAdam([straight]))
    first = torch.nn.Parameter(torch.ones(3, 2))
    optimizer = RowSparseAdam([first])
    train(gradients(4, 3, 2)[:2], first, optimizer)
    second = torch.nn.Parameter(first.detach().clone())
    resumed = RowSparseAdam([second])
    resumed.load_state_dict(optimizer.state_dict())
    assert resumed.state[second]["step"].dtype == torch.long
    train(gradients(4, 3, 2)[2:], second, resumed)
    assert torch.equal(straight, second)


def test_trains_experts_with_sparse_gradients_as_with_dense():
    tables = []
    for sparse in (True, False):
        g = torch.Generator().manual_seed(0)
        u, v = (torch.nn.Parameter(torch.randn(50, 4, generator=g)) for _ in range(2))
        optimizer = RowSparseAdam([u, v], lr=0.01, max_norm=1.0)
        for _ in range(3):
            x = torch.randn(6, 4, generator=g)
            indices = torch.randint(0, 50, (6, 3), generator=g)
            y = rank1_experts(x, u, v, indices, torch.ones(6, 3), "silu", sparse_gradients=sparse)
            optimizer.zero_grad()
            F.mse_loss(y, x).backward()
            optimizer.step()
        tables.append((u.detach(), v.detach()))
    for a, b in zip(*tables, strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_negative_settings_are_refused():
    with pytest.raises(ValueError, match=r"lr=-1.*0"):
        RowSparseAdam([torch.nn.Parameter(torch.ones(1, 1))], lr=-1)
