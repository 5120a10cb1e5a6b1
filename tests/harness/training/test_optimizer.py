"""The optimiser: a rule for each role, clipping, and expert tables whose gradients name the rows touched."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

import models
from harness.training.config import TrainingConfig
from harness.training.muon import Muon, orthogonal
from harness.training.optimizer import MuonAdamW, clip_gradients

TINY = {"d_model": 16, "n_layers": 2, "n_heads": 2, "vocab_size": 61, "max_position_embeddings": 32}


def test_the_optimiser_gives_each_role_its_rule() -> None:
    model = models.build("peer", **TINY, n_experts=36, heads=2, k=3, d_key=4)
    roles = model.parameter_roles()
    config = TrainingConfig(matrix_learning_rate=0.1, table_learning_rate=0.2, router_learning_rate=0.3)
    optimizer = MuonAdamW(model, roles, config)
    named = {id(parameter): name for name, parameter in model.named_parameters()}
    rates = {
        named[id(parameter)]: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert set(rates) == set(roles)
    expected = {"matrix": (0.1, 0.1), "table": (0.2, 0.0), "router": (0.3, 0.0), "norm": (1e-2, 0.0)}
    for name, role in roles.items():
        assert rates[name] == expected.get(role, (1e-2, 0.0)), name


def test_the_optimiser_goes_on_from_its_saved_state_to_the_bit() -> None:
    def steps(optimizer: MuonAdamW, model: torch.nn.Module, n: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for _ in range(n):
            for parameter in model.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            optimizer.step()

    torch.manual_seed(0)
    one = models.build("dense", **TINY)
    first = MuonAdamW(one, one.parameter_roles(), TrainingConfig())
    steps(first, one, 3, seed=1)
    two = models.build("dense", **TINY)
    two.load_state_dict(one.state_dict())
    second = MuonAdamW(two, two.parameter_roles(), TrainingConfig())
    second.load_state_dict(copy.deepcopy(first.state_dict()))  # loading shares tensors
    steps(first, one, 3, seed=2)
    steps(second, two, 3, seed=2)
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)


def test_muon_is_torchs_to_the_precision_of_its_bfloat16() -> None:
    for shape in ((24, 24), (24, 60), (60, 24)):
        generator = torch.Generator().manual_seed(1)
        ours, theirs = (nn.Parameter(torch.ones(shape)) for _ in range(2))
        mine = Muon([{"params": [ours]}], lr=0.1)
        torchs = torch.optim.Muon([theirs], lr=0.1, weight_decay=0.1)
        for _ in range(3):
            ours.grad = torch.randn(shape, generator=generator)
            theirs.grad = ours.grad.clone()
            mine.step()
            torchs.step()
        moved = (ours - 1).norm()
        assert float((ours - theirs).norm() / moved) < 0.02


def test_orthogonal_moves_singular_values_towards_one_and_keeps_the_directions() -> None:
    matrix = torch.randn(20, 50, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonal(matrix))
    assert 0.6 < float(values.min()) <= float(values.max()) < 1.3
    assert torch.equal(orthogonal(matrix.T), orthogonal(matrix).T)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    rotated = u.T @ orthogonal(matrix) @ v.T  # diagonal where the directions stayed
    assert float((rotated - rotated.diag().diag()).abs().max()) < 1e-3


def sparse_rows(dense: Tensor, rows: list[int]) -> Tensor:
    return torch.sparse_coo_tensor(torch.tensor([rows]), dense[rows], dense.shape)


def test_clipping_sees_sparse_gradients_as_the_dense_ones_they_stand_for() -> None:
    generator = torch.Generator().manual_seed(0)
    gradient = torch.zeros(10, 4)
    gradient[[2, 7]] = torch.randn(2, 4, generator=generator)
    other = torch.randn(5, generator=generator)
    for limit in (0.1, 100.0):
        dense, sparse = ([nn.Parameter(torch.zeros(10, 4)), nn.Parameter(torch.zeros(5))] for _ in range(2))
        dense[0].grad, dense[1].grad = gradient.clone(), other.clone()
        expected = torch.nn.utils.clip_grad_norm_(dense, limit)
        # Row 2 twice, in halves: the norm is that of the sum.
        halves = gradient.clone()
        halves[2] /= 2
        sparse[0].grad, sparse[1].grad = sparse_rows(halves, [2, 7, 2]), other.clone()
        assert torch.allclose(clip_gradients(sparse, limit), expected)
        assert torch.allclose(sparse[0].grad.to_dense(), dense[0].grad)  # pyright: ignore
        assert torch.allclose(sparse[1].grad, dense[1].grad)  # pyright: ignore


def test_tables_with_sparse_gradients_move_only_the_rows_touched_and_resume_to_the_bit() -> None:
    def fresh() -> tuple[models.TrunkForCausalLM, MuonAdamW]:
        torch.manual_seed(0)
        model = models.build("peer", **TINY, n_experts=36, heads=2, k=3, d_key=4)
        model.config.sparse_gradients = True
        return model, MuonAdamW(model, model.parameter_roles(), TrainingConfig(table_learning_rate=0.5))

    def step(model: models.TrunkForCausalLM, optimizer: MuonAdamW, rows: list[int], seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        roles = model.parameter_roles()
        for name, parameter in model.named_parameters():
            gradient = torch.randn(parameter.shape, generator=generator)
            parameter.grad = sparse_rows(gradient, rows) if roles[name] == "table" else gradient
        clip_gradients(model.parameters(), 1.0)
        optimizer.step()

    model, optimizer = fresh()
    before = model.model.layers[0].feed_forward.u.detach().clone()  # pyright: ignore
    assert {group["role"]: group["lr"] for group in optimizer.param_groups}["table"] == 0.5
    step(model, optimizer, [3, 30], seed=1)
    moved = (model.model.layers[0].feed_forward.u != before).any(1).nonzero()[:, 0].tolist()  # pyright: ignore
    assert moved == [3, 30]
    other, resumed = fresh()
    other.load_state_dict(model.state_dict())
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for each, its in ((model, optimizer), (other, resumed)):
        step(each, its, [3, 9], seed=2)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
